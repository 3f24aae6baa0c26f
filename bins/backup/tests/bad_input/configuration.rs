//! Configuration that is refused before anything is looked at: the same words by every program.

use super::support::Bench;
use super::support::table::{Row, Wrong, check};
use super::{ALL, Backups, row};

fn misspelt_section(bench: &mut Bench, _: &Backups) {
    bench.write("backstay.toml", "stanza = \"main\"\n[compresion]\nlevel = 3\n");
}

fn misspelt_rule(bench: &mut Bench, _: &Backups) {
    bench.write("backstay.toml", "[retention]\nkeep-dayly = 7\n");
}

fn bad_rule(bench: &mut Bench, _: &Backups) {
    bench.write("backstay.toml", "[retention]\nkeep-last = 0\n");
}

pub(super) fn rows() -> Vec<Row<Backups>> {
    let everywhere = ALL.into_iter().flat_map(of_every_program);
    everywhere.chain(unknown_keys()).chain(addresses()).chain(retention()).collect()
}

fn of_every_program(program: &str) -> Vec<Row<Backups>> {
    let local = format!("{program} --repository ./local");
    vec![
        row(Wrong::UnknownKey, "an unknown section", local.clone()).given(misspelt_section).ends(
            2,
            "error: unknown key `compresion` at line 2 of backstay.toml: did you mean `compression`?",
        ),
        row(Wrong::UnknownKey, "an unknown key in a flag", format!("{local} --option compression.levle=3"))
            .ends(2, "error: unknown key `compression.levle` in --option: did you mean `compression.level`?"),
        row(Wrong::BadRetention, "a retention that keeps nothing", local).given(bad_rule).ends(
            2,
            "error: bad value of `retention.keep-last` at line 2 of backstay.toml: \
             0 is out of range: it must be at least 1",
        ),
        row(
            Wrong::BadUrl,
            "a repository in a store that is not supported",
            format!("{program} --repository gs://bucket/shop"),
        )
        .ends(
            2,
            "error: bad value of `repository` in --repository: gs:// is not supported: write a directory such as …",
        ),
        row(Wrong::BadUrl, "an S3 address without a bucket", format!("{program} --repository s3:///shop"))
            .ends(2, "error: bad value of `repository` in --repository: the bucket is missing: write s3://bucket/prefix"),
    ]
}

fn unknown_keys() -> Vec<Row<Backups>> {
    vec![
        row(Wrong::UnknownKey, "an unknown key in a section", "prune-backups --repository ./local")
            .given(misspelt_rule)
            .ends(
                2,
                "error: unknown key `retention.keep-dayly` at line 2 of backstay.toml: \
                 did you mean `retention.keep-daily`?",
            ),
        row(Wrong::UnknownKey, "a flag that does not exist", "list-backups --repositry ./local")
            .ends(2, "error: unexpected argument '--repositry' found\n\n  tip: …--repository…try '--help'…"),
        row(Wrong::Other, "a file that is no TOML", "list-backups --repository ./local")
            .given(|bench, _| bench.write("backstay.toml", "stanza = main\n"))
            .ends(2, "error: configuration file backstay.toml is not valid TOML at line 1: …\nhint: …"),
        row(Wrong::Other, "a file that is missing", "list-backups --config no.toml --repository ./local")
            .ends(2, "error: cannot read configuration file no.toml: No such file or directory (os error 2)\nhint: …"),
    ]
}

fn addresses() -> Vec<Row<Backups>> {
    let new = "backup-database --repository ./new --database-url";
    vec![
        row(Wrong::BadUrl, "a database address of another product", format!("{new} mysql://u@h/d"))
            .ends(2, "error: bad value of `postgres.url` in --database-url: write it as postgresql://…"),
        row(
            Wrong::BadUrl,
            "a database address with a port that is none",
            format!("{new} postgresql://u@h:port/d"),
        )
        .ends(2, "error: invalid connection setting: the URL cannot be read: invalid port number\nhint: …"),
        row(
            Wrong::BadUrl,
            "a database address with an unknown parameter",
            format!("{new} postgresql://u@h/d?sslmod=x"),
        )
        .ends(2, "error: invalid connection setting: parameter \"sslmod\" is not supported\nhint: …"),
        row(
            Wrong::BadUrl,
            "an S3 address with an unknown parameter",
            "backup-database --repository s3://bucket/shop?regoin=eu-central-1",
        )
        .ends(2, "error: unknown key `…regoin` in --repository: did you mean `…region`?"),
    ]
}

fn retention() -> Vec<Row<Backups>> {
    let prune = "prune-backups --repository ./local";
    vec![
        row(Wrong::BadRetention, "a retention that keeps nothing, by flag", format!("{prune} --keep-last 0"))
            .ends(2, "error: bad value of `retention.keep-last` in --keep-last: 0 is out of range: it must be at least 1"),
        row(Wrong::BadRetention, "a retention that is no number", format!("{prune} --keep-daily many"))
            .ends(2, "error: bad value of `retention.keep-daily` in --keep-daily: \"many\" is no whole number: write one such as 7"),
        row(Wrong::BadRetention, "a retention without a unit", format!("{prune} --keep-within 30")).ends(
            2,
            "error: bad value of `retention.keep-within` in --keep-within: \
             \"30\" has no unit: write 30s, 30m, 30h or 30d",
        ),
        row(Wrong::BadRetention, "a retention of one repository", prune)
            .given(|bench, _| {
                let text = "[[repository]]\nname = \"a\"\npath = \"local\"\nretention.keep-within = \"30\"\n";
                bench.write("backstay.toml", text);
            })
            .ends(2, "error: bad value of `repository…retention.keep-within` at line 4 of backstay.toml: …write 30s, …"),
    ]
}

#[test]
fn configuration() {
    check(&Backups::new(), &rows());
}
