//! Code: git repositories as bundles that stock git opens.
//!
//! ```text
//! read     refs and HEAD, once ─▶ a repository of ours with these refs, which borrows the objects (shadow.rs)
//!          working tree: status, patches, untracked files; LFS objects by name
//! decide   as in the newest good set? ─▶ nothing to do
//!          full, or an increment on it (chain.rs); without recipients: look for secrets, stop at the first finding
//! store    git bundle ─┬▶ age ─▶ repository.bundle.age            one pass, nothing on disk but the proof
//!                      └▶ proof: taken apart as a clone does it, every object hashed
//!          lfs.tar, staged.patch, unstaged.patch, untracked.tar, problems.jsonl, state.json
//! prove    everything that the refs need is in the proof ─▶ manifest
//! ```
//!
//! A restore walks the chain from its full set, takes each bundle apart into a new repository, writes the refs that `state.json`
//! names, runs `git fsck --full`, compares, and renames the whole to its place.
//!
//! | what happens | what becomes of it |
//! |---|---|
//! | an object of the source is damaged, also where git copies it unread | the proof fails: no set, exit code 3 |
//! | an LFS object is not what its name says, an untracked file cannot be read | incomplete set, exit code 3 |
//! | refs move while they are read, or afterwards | the set has what they were when they were listed |
//! | objects go (`git gc`) while they are read | git or the proof fails: no set, run again |
//! | killed anywhere | no manifest, so no set; the folder of the proof is removed by the next run |
//! | shallow or partial clone, unknown form | refused before anything is read |
//! | hooks, filters, monitors, remotes, includes of the repository's configuration | never run, never followed |
//! | git does not end | killed with everything it started when its time is over |
//! | a set of a chain is damaged or gone | nothing that builds on it counts as good; the next set is a full one |
//! | a restore is killed | the place is as it was; the next restore to it removes what was begun |
//! | something is in the place | left alone, exit code 4 |

mod backup;
mod bundle;
mod chain;
mod error;
mod facts;
mod git;
mod layout;
mod lfs;
mod mark;
mod options;
mod pointers;
mod restore;
mod scratch;
mod secrets;
mod shadow;
mod source;
mod state;
mod store;
mod uncommitted;

pub use backup::{CodeReport, Outcome, backup_code};
pub use chain::{chain, facts};
pub use error::CodeError;
pub use facts::{CodeFacts, LfsFacts, UncommittedFacts};
pub use options::CodeOptions;
pub use restore::{
    Described, FileOptions, Link, RestoreOptions, Restored, StoredSet, describe, restore, restore_file,
    test_restore,
};
pub use source::{CodePlan, is_repository, plan_code};
pub use state::{Dirty, Head, LfsObject, Name, Oid, Ref, State, Submodule, WorkTree};

/// Kind of such a set.
pub const KIND: &str = "code";
/// Version of `state.json`.
const FORMAT: u32 = 1;
/// Refs that are ours.
const MARKS: &str = "refs/backstay/";
/// Commits that other working trees of a repository stand on, without any branch.
const WORKTREES: &str = "refs/backstay/worktrees/";
/// Marks of sets.
const SETS: &str = "refs/backstay/sets/";

/// Names of objects, without the endings of compression and encryption.
mod objects {
    pub(super) const BUNDLE: &str = "repository.bundle";
    pub(super) const STATE: &str = "state.json";
    pub(super) const LFS: &str = "lfs.tar";
    pub(super) const STAGED: &str = "staged.patch";
    pub(super) const UNSTAGED: &str = "unstaged.patch";
    pub(super) const UNTRACKED: &str = "untracked.tar";
    pub(super) const PROBLEMS: &str = "problems.jsonl";
}
