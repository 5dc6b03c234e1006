//! weft-apiserver
