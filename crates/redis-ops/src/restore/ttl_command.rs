//! Applies a policy for expiry times to one replicated command.
//!
//! A primary of version 7 or newer replicates absolute times only (`PXAT`, `PEXPIREAT`, `HPEXPIREAT`, `RESTORE … ABSTTL`).
//! Older ones replicate what the client sent; such a relative time counts from when the command arrived, or a replay would
//! give the key that much time again. Scripts and functions arrive as the commands they ran, so arguments are all there is.
//!
//! A command that this does not understand stays as it is, byte for byte.

use std::borrow::Cow;

use super::ttl::{Expiry, TtlChange};

/// Largest expiry time of a field of a hash; servers refuse later ones, and with them the command.
const MOST_FIELD_EXPIRY: i64 = (1 << 46) - 2;

type Arguments<'a> = Vec<Cow<'a, [u8]>>;

/// How a command gives a time.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    Seconds,
    Millis,
    SecondsFromNow,
    MillisFromNow,
}

impl Unit {
    /// The unit of an option such as `PXAT`.
    fn of_option(word: &[u8]) -> Option<Self> {
        let units: [(&[u8], Self); 4] = [
            (b"EXAT", Self::Seconds),
            (b"PXAT", Self::Millis),
            (b"EX", Self::SecondsFromNow),
            (b"PX", Self::MillisFromNow),
        ];
        units.into_iter().find(|(name, _)| word.eq_ignore_ascii_case(name)).map(|(_, unit)| unit)
    }

    /// The absolute time in milliseconds; `None` for what is no number.
    fn read(self, text: &[u8], now: i64) -> Option<i64> {
        let number: i64 = std::str::from_utf8(text).ok()?.parse().ok()?;
        Some(match self {
            Self::Millis => number,
            Self::Seconds => number.checked_mul(1000)?,
            Self::MillisFromNow => number.checked_add(now)?,
            Self::SecondsFromNow => number.checked_mul(1000)?.checked_add(now)?,
        })
    }
}

/// One expiry time in a command, before and after.
struct Time {
    /// It is absolute, in milliseconds, and stays what it is: nothing is to be written.
    is_same: bool,
    expiry: Expiry,
}

/// Names of commands that can carry an expiry.
const NAMES: [&str; 17] = [
    "SET",
    "GETEX",
    "HSETEX",
    "HGETEX",
    "MSETEX",
    "PEXPIREAT",
    "EXPIREAT",
    "PEXPIRE",
    "EXPIRE",
    "HPEXPIREAT",
    "HEXPIREAT",
    "HPEXPIRE",
    "HEXPIRE",
    "SETEX",
    "PSETEX",
    "RESTORE",
    "RESTORE-ASKING",
];

/// Whether a command of that name can carry an expiry.
pub(super) fn may_expire(name: &[u8]) -> bool {
    NAMES.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
}

/// Rewrites a command; `None` when it stays as it is. `now` is when it arrived, in milliseconds since 1970.
#[must_use]
pub fn rewrite<'a>(change: TtlChange, arguments: &[&'a [u8]], now: i64) -> Option<Arguments<'a>> {
    let rewriter = Rewriter { change, now };
    let name = arguments.first()?.to_ascii_uppercase();
    match &*name {
        b"SET" => rewriter.options(arguments, 3, arguments.len(), None),
        b"GETEX" => rewriter.options(arguments, 2, arguments.len(), Some(b"PERSIST")),
        b"HSETEX" => rewriter.options(arguments, 2, fields_at(arguments)?, None),
        b"HGETEX" => rewriter.options(arguments, 2, fields_at(arguments)?, Some(b"PERSIST")),
        b"MSETEX" => rewriter.options(arguments, pairs_end(arguments)?, arguments.len(), None),
        b"PEXPIREAT" => rewriter.expire(arguments, Unit::Millis),
        b"EXPIREAT" => rewriter.expire(arguments, Unit::Seconds),
        b"PEXPIRE" => rewriter.expire(arguments, Unit::MillisFromNow),
        b"EXPIRE" => rewriter.expire(arguments, Unit::SecondsFromNow),
        b"HPEXPIREAT" => rewriter.expire_fields(arguments, Unit::Millis),
        b"HEXPIREAT" => rewriter.expire_fields(arguments, Unit::Seconds),
        b"HPEXPIRE" => rewriter.expire_fields(arguments, Unit::MillisFromNow),
        b"HEXPIRE" => rewriter.expire_fields(arguments, Unit::SecondsFromNow),
        b"SETEX" => rewriter.set_with_time(arguments, Unit::SecondsFromNow),
        b"PSETEX" => rewriter.set_with_time(arguments, Unit::MillisFromNow),
        b"RESTORE" | b"RESTORE-ASKING" => rewriter.restore(arguments),
        _ => None,
    }
}

/// Where the list of fields begins.
fn fields_at(arguments: &[&[u8]]) -> Option<usize> {
    arguments.iter().skip(2).position(|word| word.eq_ignore_ascii_case(b"FIELDS")).map(|at| at + 2)
}

/// Where the keys and values of `MSETEX` end.
fn pairs_end(arguments: &[&[u8]]) -> Option<usize> {
    let keys: usize = std::str::from_utf8(arguments.get(1)?).ok()?.parse().ok()?;
    let end = keys.checked_mul(2)?.checked_add(2)?;
    (end <= arguments.len()).then_some(end)
}

fn copied<'a>(arguments: &[&'a [u8]]) -> Arguments<'a> {
    arguments.iter().map(|word| Cow::Borrowed(*word)).collect()
}

fn number<'a>(value: i64) -> Cow<'a, [u8]> {
    Cow::Owned(value.to_string().into_bytes())
}

struct Rewriter {
    change: TtlChange,
    now: i64,
}

impl Rewriter {
    fn time(&self, text: &[u8], unit: Unit, most: i64) -> Option<Time> {
        let before = unit.read(text, self.now)?;
        let expiry = match self.change.apply(before) {
            Expiry::At(at) if at != before => Expiry::At(at.min(most)),
            same => same,
        };
        Some(Time { is_same: unit == Unit::Millis && expiry == Expiry::At(before), expiry })
    }

    /// Commands with an option such as `PXAT 1700000000000` somewhere in `from..to`.
    fn options<'a>(
        &self,
        arguments: &[&'a [u8]],
        from: usize,
        to: usize,
        never: Option<&'static [u8]>,
    ) -> Option<Arguments<'a>> {
        let (at, unit) = find_option(arguments, from, to)?;
        let of_fields = arguments[0].first().is_some_and(|letter| letter.eq_ignore_ascii_case(&b'H'));
        let most = if of_fields { MOST_FIELD_EXPIRY } else { i64::MAX };
        let time = self.time(arguments[at + 1], unit, most)?;
        if time.is_same {
            return None;
        }
        let mut rewritten = copied(&arguments[..at]);
        match (time.expiry, never) {
            (Expiry::At(millis), _) => rewritten.extend([Cow::Borrowed(&b"PXAT"[..]), number(millis)]),
            (Expiry::Never, Some(word)) => rewritten.push(Cow::Borrowed(word)),
            (Expiry::Never, None) => {}
        }
        rewritten.extend(copied(&arguments[at + 2..]));
        Some(rewritten)
    }

    /// `EXPIRE key time [NX|XX|GT|LT]` and its relatives. Conditions held on the source, or it had not replicated it.
    fn expire<'a>(&self, arguments: &[&'a [u8]], unit: Unit) -> Option<Arguments<'a>> {
        let time = self.time(arguments.get(2)?, unit, i64::MAX)?;
        let key = Cow::Borrowed(arguments[1]);
        match time.expiry {
            _ if time.is_same => None,
            Expiry::Never => Some(vec![Cow::Borrowed(b"PERSIST"), key]),
            Expiry::At(millis) => {
                let mut rewritten = vec![Cow::Borrowed(&b"PEXPIREAT"[..]), key, number(millis)];
                rewritten.extend(copied(&arguments[3..]));
                Some(rewritten)
            }
        }
    }

    /// `HEXPIRE key time [condition] FIELDS n field…` and its relatives.
    fn expire_fields<'a>(&self, arguments: &[&'a [u8]], unit: Unit) -> Option<Arguments<'a>> {
        let time = self.time(arguments.get(2)?, unit, MOST_FIELD_EXPIRY)?;
        let key = Cow::Borrowed(arguments[1]);
        match time.expiry {
            _ if time.is_same => None,
            Expiry::Never => {
                let fields = fields_at(arguments)?;
                let mut rewritten = vec![Cow::Borrowed(&b"HPERSIST"[..]), key];
                rewritten.extend(copied(&arguments[fields..]));
                Some(rewritten)
            }
            Expiry::At(millis) => {
                let mut rewritten = vec![Cow::Borrowed(&b"HPEXPIREAT"[..]), key, number(millis)];
                rewritten.extend(copied(&arguments[3..]));
                Some(rewritten)
            }
        }
    }

    /// `SETEX key time value`.
    fn set_with_time<'a>(&self, arguments: &[&'a [u8]], unit: Unit) -> Option<Arguments<'a>> {
        let &[_, key, text, value] = arguments else { return None };
        let time = self.time(text, unit, i64::MAX)?;
        let mut rewritten = vec![Cow::Borrowed(&b"SET"[..]), Cow::Borrowed(key), Cow::Borrowed(value)];
        if let Expiry::At(millis) = time.expiry {
            rewritten.extend([Cow::Borrowed(&b"PXAT"[..]), number(millis)]);
        }
        Some(rewritten)
    }

    /// `RESTORE key ttl payload [REPLACE] [ABSTTL] …`; a ttl of 0 means none.
    fn restore<'a>(&self, arguments: &[&'a [u8]]) -> Option<Arguments<'a>> {
        if arguments.len() < 4 || arguments[2] == b"0" {
            return None;
        }
        let is_absolute = arguments[4..].iter().any(|word| word.eq_ignore_ascii_case(b"ABSTTL"));
        let unit = if is_absolute { Unit::Millis } else { Unit::MillisFromNow };
        let time = self.time(arguments[2], unit, i64::MAX)?;
        if time.is_same {
            return None;
        }
        let mut rewritten = copied(arguments);
        rewritten[2] = match time.expiry {
            Expiry::At(millis) => number(millis),
            Expiry::Never => Cow::Borrowed(b"0"),
        };
        if !is_absolute {
            rewritten.push(Cow::Borrowed(b"ABSTTL"));
        }
        Some(rewritten)
    }
}

/// The option that gives a time. Words behind `IFEQ` and the like are values, whatever they look like.
fn find_option(arguments: &[&[u8]], from: usize, to: usize) -> Option<(usize, Unit)> {
    const WITH_VALUE: [&[u8]; 4] = [b"IFEQ", b"IFNE", b"IFDEQ", b"IFDNE"];
    let mut at = from;
    while at + 1 < to {
        if let Some(unit) = Unit::of_option(arguments[at]) {
            return Some((at, unit));
        }
        at += if WITH_VALUE.iter().any(|word| arguments[at].eq_ignore_ascii_case(word)) { 2 } else { 1 };
    }
    None
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;
    use crate::restore::ttl::TtlPolicy;

    const TARGET: i64 = 1_000_000;
    const NOW: i64 = 500_000;

    /// The words of a command after a policy; moments lie a minute apart.
    fn after(policy: TtlPolicy, command: &str) -> String {
        let at = |millis| Timestamp::from_millisecond(millis).unwrap();
        let change = TtlChange::new(policy, at(TARGET), at(TARGET + 60_000));
        let words: Vec<_> = command.split(' ').map(str::as_bytes).collect();
        match rewrite(change, &words, NOW) {
            None => "same".to_owned(),
            Some(words) => {
                words.iter().map(|word| String::from_utf8_lossy(word)).collect::<Vec<_>>().join(" ")
            }
        }
    }

    #[test]
    fn every_form_of_an_expiry_is_shifted_and_stripped() {
        let table = [
            ("SET k v PXAT 1000500", "SET k v PXAT 1060500", "SET k v"),
            ("SET k PXAT GET PXAT 1000500 NX", "SET k PXAT GET PXAT 1060500 NX", "SET k PXAT GET NX"),
            ("set k v exat 1001", "set k v PXAT 1061000", "set k v"),
            ("SET k v EX 900", "SET k v PXAT 1460000", "SET k v"),
            ("SET k v IFEQ PX PX 900000", "SET k v IFEQ PX PXAT 1460000", "SET k v IFEQ PX"),
            ("SET k v KEEPTTL", "same", "same"),
            ("SET k v", "same", "same"),
            ("SET k EX", "same", "same"),
            ("SETEX k 900 v", "SET k v PXAT 1460000", "SET k v"),
            ("PSETEX k 900000 v", "SET k v PXAT 1460000", "SET k v"),
            ("PEXPIREAT k 1000500", "PEXPIREAT k 1060500", "PERSIST k"),
            ("PEXPIREAT k 1000500 GT", "PEXPIREAT k 1060500 GT", "PERSIST k"),
            ("EXPIREAT k 1001", "PEXPIREAT k 1061000", "PERSIST k"),
            ("EXPIRE k 900", "PEXPIREAT k 1460000", "PERSIST k"),
            ("PEXPIRE k 900000", "PEXPIREAT k 1460000", "PERSIST k"),
            ("GETEX k PXAT 1000500", "GETEX k PXAT 1060500", "GETEX k PERSIST"),
            ("GETEX k PERSIST", "same", "same"),
            ("HPEXPIREAT h 1000500 FIELDS 1 f", "HPEXPIREAT h 1060500 FIELDS 1 f", "HPERSIST h FIELDS 1 f"),
            ("HEXPIRE h 900 NX FIELDS 1 f", "HPEXPIREAT h 1460000 NX FIELDS 1 f", "HPERSIST h FIELDS 1 f"),
            (
                "HSETEX h FNX PXAT 1000500 FIELDS 1 PX 7",
                "HSETEX h FNX PXAT 1060500 FIELDS 1 PX 7",
                "HSETEX h FNX FIELDS 1 PX 7",
            ),
            ("HSETEX h FIELDS 1 PX 7", "same", "same"),
            ("HGETEX h EX 900 FIELDS 1 f", "HGETEX h PXAT 1460000 FIELDS 1 f", "HGETEX h PERSIST FIELDS 1 f"),
            ("MSETEX 2 EX 1 PX 2 PXAT 1000500", "MSETEX 2 EX 1 PX 2 PXAT 1060500", "MSETEX 2 EX 1 PX 2"),
            ("MSETEX 99999999999999999999 EX 1", "same", "same"),
            (
                "RESTORE k 1000500 payload ABSTTL",
                "RESTORE k 1060500 payload ABSTTL",
                "RESTORE k 0 payload ABSTTL",
            ),
            (
                "RESTORE k 900000 p REPLACE",
                "RESTORE k 1460000 p REPLACE ABSTTL",
                "RESTORE k 0 p REPLACE ABSTTL",
            ),
            ("RESTORE k 0 payload", "same", "same"),
            ("DEL PXAT 1000500", "same", "same"),
            ("XADD s PXAT 5 f v", "same", "same"),
            ("PEXPIREAT k soon", "same", "same"),
        ];
        for (command, shifted, stripped) in table {
            assert_eq!(after(TtlPolicy::Shift, command), shifted, "{command}");
            assert_eq!(after(TtlPolicy::Strip, command), stripped, "{command}");
        }
    }

    #[test]
    fn keeping_touches_relative_times_only() {
        assert_eq!(after(TtlPolicy::Keep, "SET k v PXAT 1000500"), "same");
        assert_eq!(after(TtlPolicy::Keep, "PEXPIREAT k 1000500 XX"), "same");
        assert_eq!(after(TtlPolicy::Keep, "EXPIRE k 900"), "PEXPIREAT k 1400000");
        assert_eq!(after(TtlPolicy::Keep, "SETEX k 900 v"), "SET k v PXAT 1400000");
    }

    #[test]
    fn what_had_expired_at_the_target_is_not_brought_back_to_life() {
        assert_eq!(after(TtlPolicy::Strip, "PEXPIREAT k 999999"), "same");
        assert_eq!(after(TtlPolicy::Strip, "SET k v EX 100"), "SET k v PXAT 600000");
    }

    #[test]
    fn fields_stay_within_what_servers_accept() {
        let late = (1_i64 << 46) - 10;
        let most = (1_i64 << 46) - 2;
        assert_eq!(
            after(TtlPolicy::Shift, &format!("HPEXPIREAT h {late} FIELDS 1 f")),
            format!("HPEXPIREAT h {most} FIELDS 1 f")
        );
    }

    proptest! {
        #[test]
        fn any_words_are_survived(words in prop::collection::vec(prop::sample::select(vec![
            "SET", "GETEX", "HSETEX", "HGETEX", "MSETEX", "PEXPIREAT", "RESTORE", "EX", "PXAT", "FIELDS", "IFEQ",
            "ABSTTL", "-9223372036854775808", "9223372036854775807", "2", "", "k",
        ]), 0..9)) {
            let words: Vec<_> = words.iter().map(|word| word.as_bytes()).collect();
            for policy in [TtlPolicy::Keep, TtlPolicy::Shift, TtlPolicy::Strip] {
                let at = |millis| Timestamp::from_millisecond(millis).unwrap();
                let change = TtlChange::new(policy, at(TARGET), at(2 * TARGET));
                if let Some(changed) = rewrite(change, &words, NOW) {
                    prop_assert!(!changed.is_empty());
                }
            }
        }
    }
}
