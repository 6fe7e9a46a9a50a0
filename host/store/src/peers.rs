//! x
use std::{sync::Arc, time::Duration, str::FromStr, io};
use crate::Store;
/// x
#[derive(Debug, Clone)]
pub struct PeerAddress {}
impl FromStr for PeerAddress { type Err = String; fn from_str(_: &str) -> Result<Self, String> { Ok(Self{}) } }
/// x
pub struct Peers {}
impl Peers {
    pub(crate) fn start(_: &Arc<Store>, _: Vec<PeerAddress>, _: Duration, _: bool) -> io::Result<Self> { Ok(Self{}) }
    pub(crate) fn stop(&self) {}
    pub(crate) fn join(self) {}
}
