//! x
use std::{sync::Arc, str::FromStr, io};
use crate::Store;
/// x
#[derive(Debug, Clone)]
pub struct WitnessAddress {}
impl FromStr for WitnessAddress { type Err = String; fn from_str(_: &str) -> Result<Self, String> { Ok(Self{}) } }
/// x
pub struct Witnesses {}
impl Witnesses {
    pub(crate) fn start(_: &Arc<Store>, _: Vec<WitnessAddress>) -> io::Result<Self> { Ok(Self{}) }
    pub(crate) fn stop(&self) {}
    pub(crate) fn join(self) {}
}
