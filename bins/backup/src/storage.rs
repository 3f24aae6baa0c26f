//! `check-storage`: makes a store prove what backups rely on.

use std::fmt;
use std::sync::Arc;

use backstay_backup_core::config::TimeSpan;
use backstay_cli::human::Remedy;
use backstay_cli::{Arguments, BareStore, Context, Exit, Failure};
use backstay_storage_s3::doctor::{Diagnosis, DoctorOptions, Role, Status, diagnose, diagnose_s3};
use clap::{Parser, ValueEnum};
use serde::Serialize;

/// Probes every configured repository for real: writes small objects, provokes refusals, cleans up.
///
/// Says what the store does not guarantee and what to do about it. Ends with 0 when everything is safe, 1 when something
/// is unsafe, 5 when something could not be found out.
#[derive(Debug, Parser)]
#[command(
    name = "check-storage",
    version,
    after_help = "Every week, from cron, because permissions change:\n  \
    7 4 * * 0  check-storage --config /etc/backstay/backstay.toml"
)]
pub struct Args {
    /// What the credentials are for: a writer must not be able to delete, a maintainer must
    #[arg(long, value_enum, default_value = "writer", value_name = "ROLE")]
    role: RoleArg,
    /// Tests object locks with an object that nobody can delete for this long, such as 1m
    #[arg(long, value_name = "SPAN")]
    lock: Option<TimeSpan>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RoleArg {
    Writer,
    Maintainer,
}

impl Arguments for Args {}

/// Probes the stores one after another.
///
/// # Errors
/// No repository is configured.
pub async fn run(context: &Context, args: Args) -> Result<Exit, Failure> {
    let mut report = Checkup { stores: Vec::new(), unavailable: Vec::new() };
    let mut worst = Exit::Done;
    for (name, store) in context.bare_stores().await? {
        match store {
            Ok(store) => {
                let diagnosis = context.stoppable(probe(context, &args, store)).await?;
                worst = worse(worst, verdict(diagnosis.verdict));
                report.stores.push(Checked { repository: name, diagnosis });
            }
            Err(failure) => {
                worst = worse(worst, failure.exit());
                let (problem, hint) = (failure.message(), failure.hint().map(str::to_owned));
                report.unavailable.push(Unavailable { repository: name, problem, hint });
            }
        }
    }
    context.finish(&report, worst)
}

async fn probe(context: &Context, args: &Args, store: BareStore) -> Diagnosis {
    let role = match args.role {
        RoleArg::Writer => Role::Writer,
        RoleArg::Maintainer => Role::Maintainer,
    };
    let mut options = DoctorOptions::new(Arc::clone(&context.clock), rand::random()).role(role);
    if let Some(span) = args.lock {
        options = options.lock(span.duration());
    }
    match store {
        // Whoever can write to a directory can delete in it; that is the nature of the place and no finding.
        BareStore::Directory(store) => diagnose(store, None, options.role(Role::Maintainer)).await,
        BareStore::S3(store) => diagnose_s3(&store, options).await,
    }
}

fn verdict(status: Status) -> Exit {
    match status {
        Status::Safe | Status::NotApplicable => Exit::Done,
        Status::Unsafe => Exit::Absent,
        Status::Unknown => Exit::Temporary,
    }
}

/// "Unsafe" is an answer; a store that could not be asked is the louder problem.
fn worse(a: Exit, b: Exit) -> Exit {
    a.max(b)
}

/// What was found out.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Checkup {
    stores: Vec<Checked>,
    unavailable: Vec<Unavailable>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Checked {
    repository: String,
    #[serde(flatten)]
    diagnosis: Diagnosis,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Unavailable {
    repository: String,
    problem: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

impl fmt::Display for Checkup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for Checked { repository, diagnosis } in &self.stores {
            write!(f, "{separator}{repository} ({}): {}", diagnosis.location, diagnosis.verdict)?;
            separator = "\n";
            for finding in &diagnosis.findings {
                write!(f, "\n  {:<14}  {:<20}  {}", finding.status, finding.probe, finding.meaning)?;
                if let Some(remedy) = &finding.remedy {
                    write!(f, "\n{:38}  → {remedy}", "")?;
                }
            }
            for left in &diagnosis.leftovers {
                write!(f, "\n  left behind: {} ({})", left.key, left.reason)?;
            }
        }
        for left_out in &self.unavailable {
            let Unavailable { repository, problem, hint } = left_out;
            write!(f, "{separator}{repository}: cannot be probed: {problem}{}", Remedy(hint.as_deref()))?;
            separator = "\n";
        }
        Ok(())
    }
}
