//! Exit codes: public, the same for every program, described in `docs/exit-codes.md`.

use std::process::ExitCode;

use backstay_backup_core::Class;
use serde::Serialize;

/// How a program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exit {
    /// Everything was done.
    Done,
    /// What was asked for does not exist, or the answer is no.
    Absent,
    /// Arguments, configuration or credentials must be changed first.
    Usage,
    /// Data failed its verification.
    Data,
    /// Somebody else holds the lease, or the target is in the way.
    Conflict,
    /// The same command may succeed later.
    Temporary,
    /// Done, but an objective was missed.
    Missed,
    /// A bug of ours.
    Internal,
}

impl Exit {
    /// The number.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Absent => 1,
            Self::Usage => 2,
            Self::Data => 3,
            Self::Conflict => 4,
            Self::Temporary => 5,
            Self::Missed => 6,
            Self::Internal => 70,
        }
    }
}

impl From<Class> for Exit {
    fn from(class: Class) -> Self {
        match class {
            Class::Absent => Self::Absent,
            Class::Usage => Self::Usage,
            Class::Data => Self::Data,
            Class::Conflict => Self::Conflict,
            Class::Temporary => Self::Temporary,
            // A class that this version does not know is a bug of this version.
            _ => Self::Internal,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_the_published_ones() {
        let table = [
            (Class::Absent, 1),
            (Class::Usage, 2),
            (Class::Data, 3),
            (Class::Conflict, 4),
            (Class::Temporary, 5),
            (Class::Internal, 70),
        ];
        for (class, code) in table {
            assert_eq!(Exit::from(class).code(), code, "{class:?}");
        }
        assert_eq!((Exit::Done.code(), Exit::Missed.code()), (0, 6));
    }
}
