//! `bield recover`: what people prepare for the day on which no instance can open its state.

use std::path::PathBuf;

use bield_protocol::service::{Inspection, ShareProgress};
use bield_sdk::{
    Home, KeyService, Randomness, RecoverySession, ServiceError, Trust, missing_shares, now,
};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{confirmed, counted, key_service, principal};
use crate::failure::Failure;
use crate::output::Output;

/// Prepare and carry out the recovery of a lost key service
///
/// A key service's state opens only on the machines it runs on. When they are lost, people can open it:
/// an administrator has a recovery key shared among holders (make), each holder fetches a share (take),
/// and on the worst day as many as are needed give theirs (give) to an empty instance of the same code
/// that was started over a copy of the host's files. Nobody alone can do it, and no share opens anything
/// elsewhere than inside that code. Rehearse it: `give --rehearse` checks the shares against the running
/// service.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Recover {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    Make(Make),
    Take(Take),
    Give(Give),
    Status(Status),
}

/// Share a new recovery key among holders (administrators)
///
/// Any so many of them as --threshold says can recover, fewer can not. Shares made before are worth
/// nothing from then on. Each holder registers and fetches its share: bield recover take.
#[derive(Args)]
#[command(
    after_long_help = "Examples:\n  bield recover make --holder ed25519:... --holder ed25519:... \
    --holder me --threshold 2"
)]
struct Make {
    /// Who gets a share: a principal, or `me`; repeat for more, up to 16
    #[arg(long, value_name = "PRINCIPAL", required = true)]
    holder: Vec<String>,

    /// How many of them are needed
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u8).range(1..=16))]
    threshold: u8,

    /// It is meant: earlier shares become worthless
    #[arg(long)]
    yes: bool,
}

/// Fetch your share into this home
///
/// It is kept in shares/, readable by you alone, and never replaced. Back it up where the key service's
/// machines are not.
#[derive(Args)]
#[command(after_long_help = "Examples:\n  bield recover take")]
struct Take {}

/// Give your share
///
/// To an instance that waits for recovery, or with --rehearse to the running service, which checks that
/// the shares it was given open the recovery box, and forgets them. The share leaves this home only after
/// the instance's evidence has met trust.toml, and for recovery only when it says that it waits.
#[derive(Args)]
#[command(after_long_help = "Examples:\n  bield recover give --rehearse\n  \
    bield recover give --address 192.0.2.7:8791")]
struct Give {
    /// Check only; nothing is recovered
    #[arg(long)]
    rehearse: bool,

    /// The instance that waits [default: the addresses of trust.toml]
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "rehearse")]
    address: Option<String>,

    /// The share's file, such as a backup [default: the newest of this service in this home]
    #[arg(long, value_name = "FILE")]
    share: Option<PathBuf>,
}

/// Show whether the service could be recovered, and by whom
#[derive(Args)]
#[command(after_long_help = "Examples:\n  bield recover status\n  \
    bield recover status --address 192.0.2.7:8791")]
struct Status {
    /// An instance that waits for recovery [default: the addresses of trust.toml]
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<String>,
}

impl Recover {
    pub(crate) fn run(self, home: &Home, output: Output) -> Result<(), Failure> {
        match self.what {
            What::Make(make) => make.run(home, output),
            What::Take(_) => take(home, output),
            What::Give(give) => give.run(home, output),
            What::Status(status) => status.run(home, output),
        }
    }
}

impl Make {
    fn run(self, home: &Home, output: Output) -> Result<(), Failure> {
        let administrator = home.identity()?;
        let trust = home.trust()?;
        let holders = self.holder.iter().map(|holder| principal(home, holder));
        let holders = holders.collect::<Result<Vec<_>, _>>()?;
        if usize::from(self.threshold) > holders.len() {
            return Err(Failure::local(format_args!(
                "{} of {} holders can never come together",
                self.threshold,
                holders.len()
            )));
        }
        let mut service = key_service(home, &trust)?;
        if service.inspect()?.shares.is_some() {
            let question = "shares were made before; they become worthless. Make new ones?";
            confirmed(self.yes, question)?;
        }
        service.register(&administrator)?;
        let size = service.make_shares(&administrator, holders.clone(), self.threshold)?;
        service.close()?;
        let names: Vec<_> = holders.iter().map(ToString::to_string).collect();
        output.show(
            &json!({ "holders": names, "threshold": self.threshold, "size": size }),
            format_args!(
                "{} of {} holders can recover the key service; each of them: bield recover take\n  {}",
                self.threshold,
                names.len(),
                names.join("\n  ")
            ),
        );
        Ok(())
    }
}

fn take(home: &Home, output: Output) -> Result<(), Failure> {
    let holder = home.identity()?;
    let trust = home.trust()?;
    let mut service = key_service(home, &trust)?;
    service.register(&holder)?;
    let share = service.take_share(&holder)?;
    let path = home.keep_share(service.fresh().head.origin(), &share)?;
    service.close()?;
    let path = path.display().to_string();
    output.show(
        &json!({
            "share": path,
            "generation": share.generation,
            "number": share.number,
            "threshold": share.threshold,
        }),
        format_args!(
            "share {} of generation {}, {} are needed\n  kept  {path} (back it up elsewhere)",
            share.number, share.generation, share.threshold
        ),
    );
    Ok(())
}

impl Give {
    fn run(self, home: &Home, output: Output) -> Result<(), Failure> {
        let holder = home.identity()?;
        let trust = home.trust()?;
        let share = match &self.share {
            Some(path) => home.share_at(path)?,
            None => newest(home)?,
        };
        let progress = if self.rehearse {
            key_service(home, &trust)?.rehearse_share(&holder, share)?
        } else {
            let address = self.address.as_deref();
            let mut session = RecoverySession::connect(&trust, address, now(), &mut Randomness)?;
            if session.simulated() && !output.is_json() {
                output.note("the instance runs in a SOFTWARE TEE: no hardware protects the share");
            }
            session.give_share(&holder, share)?
        };
        let seen = home
            .head()?
            .map(|head| (head.origin().clone(), head.size()));
        let lost = seen.and_then(|(origin, seen)| {
            let same = progress.origin.as_deref() == Some(origin.as_str());
            let lost = seen.saturating_sub(progress.size?);
            (same && lost > 0).then_some(lost)
        });
        let value = json!({
            "rehearsal": self.rehearse,
            "given": progress.given.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "needed": progress.needed,
            "opened": progress.opened,
            "size": progress.size,
            "origin": progress.origin,
            "records_lost": lost,
        });
        output.show(&value, text(&progress, self.rehearse));
        if let (Some(lost), false) = (lost, output.is_json()) {
            output.note(format_args!(
                "this home has seen {} more than was found: a newer copy of the host's files \
                 would lose less. Stop the instance before others rely on it, if there is one",
                counted(lost, "record")
            ));
        }
        Ok(())
    }
}

fn text(progress: &ShareProgress, rehearsal: bool) -> String {
    let given: Vec<_> = progress.given.iter().map(ToString::to_string).collect();
    let verdict = match (progress.opened, rehearsal) {
        (true, true) => "the shares open the recovery box; they are forgotten".to_owned(),
        (true, false) => format!(
            "recovered with {}; the key service goes on",
            counted(progress.size.unwrap_or_default(), "record")
        ),
        (false, _) => format!("{} more needed", missing_shares(progress)),
    };
    format!(
        "{} of {} shares given: {verdict}\n  {}",
        given.len(),
        progress.needed,
        given.join("\n  ")
    )
}

fn newest(home: &Home) -> Result<bield_protocol::service::Share, Failure> {
    let shares = home.shares()?;
    // Of the service that trust.toml means, if anything is known of it.
    let current = shares.iter().rposition(|kept| kept.current);
    let place = current.or_else(|| (shares.len() == 1).then_some(0));
    let share = place.and_then(|place| shares.into_iter().nth(place));
    share.map(|kept| kept.share).ok_or_else(|| {
        Failure::local(
            "no share of this key service in this home: `bield recover take`, or --share FILE",
        )
    })
}

impl Status {
    fn run(self, home: &Home, output: Output) -> Result<(), Failure> {
        let trust = home.trust()?;
        let shares = home.shares()?;
        let checked = match &self.address {
            Some(_) => None,
            None => Some(KeyService::connect(home, &trust, now(), &mut Randomness)),
        };
        let (inspection, holder, state_checked) = match checked {
            Some(Ok(mut service)) => {
                let identity = home.identity()?;
                let holder = service.me(&identity).ok().map(|row| row.holder);
                (service.inspect()?, holder, true)
            }
            // One that waits for shares has no state to show; whatever else did not pass is told.
            Some(Err(error)) => match waiting(&trust, None) {
                Ok(inspection) if inspection.state == RECOVERING && may_wait(&error) => {
                    (inspection, None, false)
                }
                _ => return Err(error.into()),
            },
            None => (waiting(&trust, self.address.as_deref())?, None, false),
        };
        let kept: Vec<_> = shares.iter().map(kept_json).collect();
        let value = json!({
            "state": inspection.state,
            "state_checked": state_checked,
            "holders": inspection.shares.map(|(holders, _)| holders),
            "threshold": inspection.shares.map(|(_, threshold)| threshold),
            "holder": holder,
            "kept": kept,
        });
        let mut text = status_text(&inspection, holder, &kept);
        if !state_checked {
            text += "\n  state not checked: this is the word of code that the trust file names, not compared with \
                     what this home has seen";
        }
        output.show(&value, text);
        Ok(())
    }
}

/// What an instance says of itself that may have no state to show.
fn waiting(trust: &Trust, address: Option<&str>) -> Result<Inspection, ServiceError> {
    RecoverySession::connect(trust, address, now(), &mut Randomness)?.inspect()
}

/// Whether an instance that waits for shares can be behind it: a state that was judged is final.
const fn may_wait(error: &ServiceError) -> bool {
    !matches!(error, ServiceError::NotFresh { .. } | ServiceError::Home(_))
}

const RECOVERING: &str = "recovering";

fn kept_json(kept: &bield_sdk::KeptShare) -> Value {
    json!({
        "file": kept.path.display().to_string(),
        "generation": kept.share.generation,
        "number": kept.share.number,
        "threshold": kept.share.threshold,
        "of_this_service": kept.current,
    })
}

fn status_text(inspection: &Inspection, holder: Option<bool>, kept: &[Value]) -> String {
    let who = match inspection.shares {
        Some((holders, threshold)) => format!("{threshold} of {holders} holders can recover it"),
        None => "nobody could recover it: an administrator's `bield recover make`".to_owned(),
    };
    let mut text = format!("key service: {}\n  {who}", super::plain(&inspection.state));
    let have = kept.iter().any(|share| share["of_this_service"] == true);
    if holder == Some(true) && !have {
        text += "\n  a share is there for you: bield recover take";
    }
    for share in kept {
        text += &format!(
            "\n  here: share {} of generation {} in {}",
            share["number"],
            share["generation"],
            share["file"].as_str().unwrap_or_default()
        );
    }
    text
}

const EXAMPLES: &str = r#"Examples:
  bield recover make --holder ed25519:... --holder ed25519:... --holder me --threshold 2
  bield recover take                                # each holder
  bield recover give --rehearse                     # now and then
  bield recover give --address 192.0.2.7:8791       # the worst day
  bield recover status"#;
