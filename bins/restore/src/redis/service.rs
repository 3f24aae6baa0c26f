//! Stops the server, starts it, and asks it what it has.

use std::time::Duration;

use backstay_backup_core::Class;
use backstay_backup_core::config::Setting;
use backstay_backup_core::process::{CommandRunner, CommandSpec};
use backstay_cli::{Context, Failure, RedisArgs};
use backstay_redis_ops::restore::{LiveFacts, Outcome, RestoreReceipt, ServerConfiguration};
use backstay_redis_ops::server::Server;
use clap::Args;

/// How often a server that is being started is tried.
const POLL: Duration = Duration::from_millis(25);

/// Flags that say how the server is stopped, started and reached.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Server")]
pub(super) struct ServiceArgs {
    /// Stops the server, run by `sh` when the plan is made
    #[arg(long, value_name = "COMMAND")]
    stop_command: Option<String>,
    /// Starts the server, run by `sh` when the data is in place; must detach it, as systemctl does. Then it is asked
    #[arg(long, value_name = "COMMAND")]
    start_command: Option<String>,
    /// How long a server that was started may take until it answers, in seconds; loading does not count
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    start_patience: u64,
    #[command(flatten)]
    redis: RedisArgs,
}

impl ServiceArgs {
    /// The keys of the configuration that these flags set.
    pub(super) fn settings(&self) -> Vec<Setting> {
        self.redis.settings()
    }

    /// Runs the command that stops it.
    pub(super) async fn stop(&self, ctx: &Context) -> Result<(), Failure> {
        match &self.stop_command {
            Some(command) => shell(ctx, command, "--stop-command").await,
            None => Ok(()),
        }
    }

    /// Runs the command that starts it, and compares what came up.
    pub(super) async fn start(&self, ctx: &Context, receipt: &mut RestoreReceipt) -> Result<(), Failure> {
        let Some(command) = &self.start_command else { return Ok(()) };
        let begun = std::time::Instant::now();
        ctx.progress.begin("starting the server");
        shell(ctx, command, "--start-command").await?;
        self.check(ctx, receipt).await?;
        receipt.add_phase("start", begun.elapsed().as_secs_f64());
        receipt.finished = ctx.clock.now();
        Ok(())
    }

    /// Asks the server what it has, as soon as it has loaded.
    pub(super) async fn check(&self, ctx: &Context, receipt: &mut RestoreReceipt) -> Result<(), Failure> {
        ctx.progress.begin("waiting for the server");
        let mut server = ctx.stoppable(self.reach(ctx)).await??;
        let found = ctx.stoppable(LiveFacts::of(&mut server)).await??;
        receipt.judge(found);
        if receipt.outcome == Outcome::Different {
            tracing::error!(directory = %receipt.expected.directory.display(), "the server has something else");
        }
        Ok(())
    }

    async fn reach(&self, ctx: &Context) -> Result<Server, Failure> {
        let source = ctx.redis().await?;
        let patience = Duration::from_secs(self.start_patience);
        let begun = std::time::Instant::now();
        loop {
            match Server::connect(&source.endpoint(&source.addresses[0])).await {
                Ok(server) => return Ok(server),
                Err(error) => {
                    let failure = Failure::from(error);
                    // A loading server answers; one that loads for an hour is fine.
                    let is_loading = failure.message().contains("LOADING");
                    if !is_loading && (failure.class() != Class::Temporary || begun.elapsed() > patience) {
                        return Err(failure);
                    }
                }
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// What a running server says of itself; nothing when it was not named.
    pub(super) async fn configuration(&self, ctx: &Context) -> Result<Option<ServerConfiguration>, Failure> {
        if ctx.config.redis.url.is_none() && ctx.config.redis.addresses.is_empty() {
            return Ok(None);
        }
        let source = ctx.redis().await?;
        let endpoint = source.endpoint(&source.addresses[0]);
        let unknown = |why: String| {
            Failure::usage(format!("{endpoint} does not say what it loads at its start: {why}"))
                .with_hint("add --config-file with the configuration of the server, or --appendonly yes|no")
        };
        let mut server = ctx
            .stoppable(Server::connect(&endpoint))
            .await?
            .map_err(|error| unknown(Failure::from(error).message()))?;
        let found = ctx.stoppable(LiveFacts::of(&mut server)).await?;
        let settings = found.map_err(|error| unknown(Failure::from(error).message()))?.settings;
        if !settings.contains_key("appendonly") {
            return Err(unknown("CONFIG GET is refused".to_owned()));
        }
        Ok(Some(ServerConfiguration::from_server(&settings, &format!("the server at {endpoint}"))?))
    }
}

/// Runs an operator's own command. What it starts in the background stays.
async fn shell(ctx: &Context, command: &str, flag: &str) -> Result<(), Failure> {
    let spec = CommandSpec::new("/bin/sh").args(["-c", command]);
    let failed = |error: backstay_backup_core::process::ProcessError| {
        Failure::new(Class::Usage, error)
            .with_hint(format!("check {flag}; run the same command again afterwards"))
    };
    let mut child = ctx.runner().spawn(spec).await.map_err(failed)?;
    child.wait_or_cancel(&ctx.cancel).await.map_err(failed)
}
