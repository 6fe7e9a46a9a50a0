//! Everything that can be checked about one run.
//!
//! In: a run, a store. Out: the first thing that is wrong. For recovery and for whoever wants to know
//! before a reader finds out; a get checks only what it reads. Cost: the run is read twice.

use std::sync::Arc;

use crate::meta::Summary;
use crate::run::Run;
use crate::{Blobs, LevelsError, Part};

/// Checks a run's name, its sections, its order, its filter and its counts.
pub(crate) fn check(run: &Arc<Run>, blobs: &dyn Blobs) -> Result<(), LevelsError> {
    run.check(blobs)?;
    let opened = run.open(blobs)?;
    let mut counted: Option<Summary> = None;
    for number in 0..opened.index.len() {
        let part = Part::Block(number);
        let block = run.block(blobs, &opened, number)?;
        for at in 0..block.len() {
            let cell = block.cell(at, &opened.writers);
            let cell = cell.map_err(|what| run.broken(part, what))?;
            cell.check()?;
            if counted
                .as_ref()
                .is_some_and(|so_far| *so_far.last >= *cell.key)
            {
                return Err(run.broken(part, "keys that do not ascend"));
            }
            if opened.index.find(cell.key) != number {
                return Err(run.broken(Part::Index, "it leads to another block"));
            }
            if !opened.filter.may_have(run.secrets().filter_hash(cell.key)) {
                return Err(run.broken(Part::Filter, "it denies a key that is there"));
            }
            let clock = cell.version.clock;
            let summary = counted.get_or_insert_with(|| Summary::begin(cell.key, clock));
            summary.count(&cell);
        }
    }
    if counted.as_ref() != Some(&run.meta().summary) {
        return Err(run.broken(Part::Properties, "it sums up other cells"));
    }
    Ok(())
}
