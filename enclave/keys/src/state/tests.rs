//! The state through its service's own messages; each scene ends by replaying itself (`service::cast`).

mod administration;
mod audit;
mod bounds;
mod grants;
mod holds;
mod leases;
mod packages;
mod people;
mod property;
mod replay;
mod size;
