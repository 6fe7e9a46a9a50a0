//! The whole state on a disk that fails, against what it was told.

mod bounds;
mod cast;
mod clocks;
mod full;
mod hostile;
mod log;
mod model;
mod removal;
mod serving;
mod signing;
mod tokens;
mod torn;
