//! Functions with guests written in text, over a world of maps.

mod answers;
mod cast;
mod confined;
mod hostile;
mod inference;
mod keyvalue;
mod measured;
mod random;
mod residue;
mod slots;

use bield_platform::memory::EnclaveAllocator;

#[global_allocator]
static ALLOCATOR: EnclaveAllocator = EnclaveAllocator;
