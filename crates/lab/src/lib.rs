//! weft-lab

pub mod manifest;
