//! What guests import of the system: a clock and randomness that come from the world, and denials.
//!
//! Languages bring runtimes that import all of WASI, whether they use it or not. So everything of it can be imported;
//! what is called, is answered from the [`World`](crate::World) where that can be, and ends the request where not. Of
//! arguments, environment variables and open folders there are none, which is an answer too.
//! Imports of anything else are refused when the function is loaded.

use wasmtime::component::types::ComponentItem;
use wasmtime::component::{
    Component, ComponentNamedList, ComponentType, Lift, Linker, LinkerInstance, Lower, Resource,
    ResourceType,
};
use wasmtime::{Result, StoreContextMut};

use crate::Stopped;
use crate::guest::Guest;
use crate::host::FunctionError;

/// Adds to the linker what this component imports of the system.
pub(crate) fn link(linker: &mut Linker<Guest>, component: &Component) -> Result<(), FunctionError> {
    let engine = linker.engine().clone();
    for (name, import) in component.component_type().imports(&engine) {
        if OURS.contains(&name) {
            continue;
        }
        let known = SYSTEM.iter().any(|package| name.starts_with(package));
        let ComponentItem::ComponentInstance(interface) = import.ty else {
            return Err(FunctionError::Import(name.to_owned()));
        };
        if !known {
            return Err(FunctionError::Import(name.to_owned()));
        }
        let mut instance = linker.instance(name).map_err(FunctionError::invalid)?;
        for (item, export) in interface.exports(&engine) {
            let linked = match export.ty {
                ComponentItem::ComponentFunc(_) => function(&mut instance, name, item),
                ComponentItem::Resource(_) => {
                    instance.resource(item, ResourceType::host::<Denied>(), |_, _| Ok(()))
                }
                _ => Ok(()),
            };
            linked.map_err(FunctionError::invalid)?;
        }
    }
    Ok(())
}

fn function(instance: &mut LinkerInstance<'_, Guest>, interface: &str, name: &str) -> Result<()> {
    let (unversioned, _) = interface.split_once('@').unwrap_or((interface, ""));
    match (unversioned, name) {
        ("wasi:clocks/monotonic-clock", "now") => {
            instance.func_wrap(name, |mut store: StoreContextMut<'_, Guest>, (): ()| {
                let guest = store.data_mut();
                guest.enter(0)?;
                Ok((guest.world.now().as_millis().saturating_mul(1_000_000),))
            })
        }
        ("wasi:clocks/monotonic-clock", "resolution") => {
            instance.func_wrap(name, |mut store: StoreContextMut<'_, Guest>, (): ()| {
                store.data_mut().enter(0)?;
                Ok((1_000_000_u64,))
            })
        }
        ("wasi:clocks/wall-clock", "now") => {
            instance.func_wrap(name, |mut store: StoreContextMut<'_, Guest>, (): ()| {
                let guest = store.data_mut();
                guest.enter(0)?;
                Ok((Datetime::of_millis(guest.world.now().as_millis()),))
            })
        }
        ("wasi:clocks/wall-clock", "resolution") => {
            instance.func_wrap(name, |mut store: StoreContextMut<'_, Guest>, (): ()| {
                store.data_mut().enter(0)?;
                Ok((Datetime::of_millis(1),))
            })
        }
        ("wasi:random/random", "get-random-bytes")
        | ("wasi:random/insecure", "get-insecure-random-bytes") => instance.func_wrap(
            name,
            |mut store: StoreContextMut<'_, Guest>, (length,): (u64,)| {
                // Counted before it is made: the guest names a number, not bytes.
                let guest = store.data_mut();
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                guest.enter(length)?;
                let mut bytes = vec![0; length];
                guest.world.random(&mut bytes);
                Ok((bytes,))
            },
        ),
        ("wasi:random/random", "get-random-u64")
        | ("wasi:random/insecure", "get-insecure-random-u64") => instance
            .func_wrap(name, |mut store: StoreContextMut<'_, Guest>, (): ()| {
                Ok((store.data_mut().random_word()?,))
            }),
        ("wasi:random/insecure-seed", "insecure-seed") => {
            instance.func_wrap(name, |mut store: StoreContextMut<'_, Guest>, (): ()| {
                let guest = store.data_mut();
                Ok(((guest.random_word()?, guest.random_word()?),))
            })
        }
        _ => match nothing(instance, unversioned, name) {
            Some(linked) => linked,
            None => {
                let denied = format!("{interface}#{name}");
                instance.func_new(name, move |_, _, _, _| {
                    Err(Stopped::Denied(denied.clone()).into())
                })
            }
        },
    }
}

/// What a language's libc asks for before anything else, whether it needs it or not, and of which there is none: arguments,
/// environment, open folders, terminals. Of the streams that every process has, a handle; whoever uses it is denied.
fn nothing(
    instance: &mut LinkerInstance<'_, Guest>,
    interface: &str,
    name: &str,
) -> Option<Result<()>> {
    Some(match (interface, name) {
        ("wasi:cli/environment", "get-environment") => {
            answer(instance, name, Vec::<(String, String)>::new)
        }
        ("wasi:cli/environment", "get-arguments") => answer(instance, name, Vec::<String>::new),
        ("wasi:cli/environment", "initial-cwd") => answer(instance, name, || None::<String>),
        ("wasi:filesystem/preopens", "get-directories") => {
            answer(instance, name, Vec::<(Resource<Denied>, String)>::new)
        }
        ("wasi:cli/terminal-stdin", "get-terminal-stdin")
        | ("wasi:cli/terminal-stdout", "get-terminal-stdout")
        | ("wasi:cli/terminal-stderr", "get-terminal-stderr") => {
            answer(instance, name, || None::<Resource<Denied>>)
        }
        ("wasi:cli/stdin", "get-stdin")
        | ("wasi:cli/stdout", "get-stdout")
        | ("wasi:cli/stderr", "get-stderr") => {
            answer(instance, name, || Resource::<Denied>::new_own(0))
        }
        _ => return None,
    })
}

/// Links a function that always answers the same.
fn answer<T>(instance: &mut LinkerInstance<'_, Guest>, name: &str, of: fn() -> T) -> Result<()>
where
    (T,): ComponentNamedList + Lower + Send + Sync + 'static,
{
    instance.func_wrap(
        name,
        move |mut store: StoreContextMut<'_, Guest>, (): ()| {
            store.data_mut().enter(0)?;
            Ok((of(),))
        },
    )
}

impl Guest {
    fn random_word(&mut self) -> Result<u64, Stopped> {
        self.enter(8)?;
        let mut word = [0; 8];
        self.world.random(&mut word);
        Ok(u64::from_le_bytes(word))
    }
}

/// A resource of the system, of which there is never one.
struct Denied;

/// `wasi:clocks/wall-clock.datetime`.
#[derive(Clone, Copy, ComponentType, Lift, Lower)]
#[component(record)]
struct Datetime {
    seconds: u64,
    nanoseconds: u32,
}

impl Datetime {
    const fn of_millis(millis: u64) -> Self {
        Self {
            seconds: millis / 1000,
            nanoseconds: (millis % 1000) as u32 * 1_000_000,
        }
    }
}

/// What the worlds of `wit/world.wit` and `wit-draft/` have.
const OURS: [&str; 12] = [
    "bield:function/types@0.1.0",
    "bield:function/log@0.1.0",
    "wasi:keyvalue/store@0.2.0-draft2",
    "wasi:keyvalue/atomics@0.2.0-draft2",
    "wasi:keyvalue/batch@0.2.0-draft2",
    "wasi:keyvalue/store@0.2.0-draft",
    "wasi:keyvalue/atomics@0.2.0-draft",
    "wasi:keyvalue/batch@0.2.0-draft",
    "wasi:nn/tensor@0.2.0-rc-2024-10-28",
    "wasi:nn/graph@0.2.0-rc-2024-10-28",
    "wasi:nn/inference@0.2.0-rc-2024-10-28",
    "wasi:nn/errors@0.2.0-rc-2024-10-28",
];

/// Packages whose imports are taken, and mostly denied when called.
const SYSTEM: [&str; 7] = [
    "wasi:io/",
    "wasi:cli/",
    "wasi:clocks/",
    "wasi:random/",
    "wasi:filesystem/",
    "wasi:sockets/",
    "wasi:http/",
];
