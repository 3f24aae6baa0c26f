//! What `send-notification` does: arguments, actions and reports.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod args;
mod incidents;
mod page;
mod report;
mod rounds;

pub use args::Args;

use backstay_cli::{Context, Exit, Failure};

use args::Command;

/// Name of the program.
pub(crate) const PROGRAM: &str = "send-notification";

/// Runs the program.
///
/// # Errors
/// Whatever stops it; the outbox has nothing then that it did not have before.
pub async fn run(ctx: &Context, args: &Args) -> Result<Exit, Failure> {
    match &args.command {
        Command::Open(opening) => incidents::open(ctx, opening).await,
        Command::Update(update) => incidents::update(ctx, update).await,
        Command::Ack(ack) => incidents::acknowledge(ctx, ack).await,
        Command::Resolve(end) => incidents::resolve(ctx, end).await,
        Command::Send(send) => incidents::send(ctx, send).await,
        Command::List(list) => incidents::list(ctx, list).await,
        Command::Show(which) => incidents::show(ctx, which).await,
        Command::Tick(tick) => rounds::tick(ctx, tick).await,
        Command::Lint => rounds::lint(ctx).await,
        Command::Explain(which) => rounds::explain(ctx, which).await,
        Command::Page(args) => page::page(ctx, args).await,
    }
}
