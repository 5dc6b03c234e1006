//! weft-observe
