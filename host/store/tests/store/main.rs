//! A replica server from outside: what it takes, what it refuses, what survives.

mod serving;
mod support;
