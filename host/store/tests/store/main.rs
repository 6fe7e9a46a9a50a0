//! A replica server from outside: what it takes, what it refuses, what survives.
#![cfg(test)]

mod checking;
mod crash;
mod gossip;
mod refusals;
mod serving;
mod support;
mod witnessing;
