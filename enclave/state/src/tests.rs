//! The whole state on a disk that fails, against what it was told.

mod cast;
mod hostile;
mod log;
mod model;
mod serving;
