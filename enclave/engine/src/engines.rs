//! Several engines in order of preference.
//!
//! ```text
//! bytes, format ──▶ first engine that takes the format and finds nothing against the model ──▶ load
//! ```
//!
//! Always true: which engine runs a model follows from its bytes and the order alone; when that engine fails to
//! load it after all, or its golden pairs differ, the model is refused, not tried elsewhere. Tiered engines name beside
//! it the last in the order that has nothing against the model either, to answer first.

use bield_package::ModelFormat;

use crate::{Engine, EngineError, Footprint, Model};

/// Engines, the preferred one first.
pub struct Engines {
    engines: Vec<Box<dyn Engine>>,
    names: &'static str,
    tiered: bool,
}

impl Engines {
    /// Puts engines in order. Their names together stay in memory until the program ends.
    pub fn new(engines: Vec<Box<dyn Engine>>) -> Self {
        let names: Vec<&str> = engines.iter().map(|engine| engine.name()).collect();
        Self {
            names: names.join(", ").leak(),
            engines,
            tiered: false,
        }
    }

    /// Lets the last engine in the order answer for a model until the one that is chosen for it has opened it.
    #[must_use]
    pub fn tiered(self) -> Self {
        Self {
            tiered: true,
            ..self
        }
    }

    fn taking(&self, format: ModelFormat) -> impl Iterator<Item = &dyn Engine> {
        let engines = self.engines.iter().map(|engine| &**engine);
        engines.filter(move |engine| engine.takes(format))
    }
}

impl Engine for Engines {
    fn name(&self) -> &'static str {
        self.names
    }

    fn takes(&self, format: ModelFormat) -> bool {
        self.taking(format).next().is_some()
    }

    fn examine(&self, bytes: &[u8], format: ModelFormat) -> Result<(), EngineError> {
        self.choose(bytes, format).map(drop)
    }

    fn load(&self, bytes: Vec<u8>, format: ModelFormat) -> Result<Box<dyn Model>, EngineError> {
        self.choose(&bytes, format)?.load(bytes, format)
    }

    fn load_apart(
        &self,
        bytes: Vec<u8>,
        format: ModelFormat,
    ) -> Result<Box<dyn Model>, EngineError> {
        self.choose(&bytes, format)?.load_apart(bytes, format)
    }

    /// The most that any engine takes which may be chosen.
    fn footprint(&self, format: ModelFormat, bytes: u64) -> Footprint {
        let footprints = self.taking(format).map(|e| e.footprint(format, bytes));
        let nothing = Footprint {
            loading: bytes,
            resident: bytes,
        };
        footprints.fold(nothing, |most, one| Footprint {
            loading: most.loading.max(one.loading),
            resident: most.resident.max(one.resident),
        })
    }

    /// Of the engine that is chosen, but not less than what any takes that may be.
    fn footprint_of(&self, bytes: &[u8], format: ModelFormat) -> Footprint {
        let most = self.footprint(format, bytes.len() as u64);
        let Ok(chosen) = self.choose(bytes, format) else {
            return most;
        };
        let own = chosen.footprint_of(bytes, format);
        Footprint {
            loading: most.loading.max(own.loading),
            resident: most.resident.max(own.resident),
        }
    }

    fn first(&self, bytes: &[u8], format: ModelFormat) -> Option<&dyn Engine> {
        let last = self.taking(format).last().filter(|_| self.tiered)?;
        let chosen = self.choose(bytes, format).ok()?;
        let differs = last.name() != chosen.name();
        (differs && last.examine(bytes, format).is_ok()).then_some(last)
    }
}

impl Engines {
    /// The engine that runs the model, or what the most preferred one has against it.
    fn choose(&self, bytes: &[u8], format: ModelFormat) -> Result<&dyn Engine, EngineError> {
        let mut refused = None;
        for engine in self.taking(format) {
            match engine.examine(bytes, format) {
                Ok(()) => return Ok(engine),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        Err(refused.unwrap_or(EngineError::Format {
            format,
            engines: self.names,
        }))
    }
}
