//! The bars: ratios of ours to the best peer's, round by round.

use backstay_benches::{Bar, Better, Measured, Variant, median};

/// Peak memory that is wanted of ours, and aimed at, in MiB.
const MEMORY: (f64, f64) = (64.0, 40.0);

/// The variant whose name contains this.
pub(crate) fn position(variants: &[Variant], name: &str) -> Option<usize> {
    variants.iter().position(|variant| variant.name.contains(name))
}

struct Judge<'a> {
    variants: &'a [Variant],
    results: &'a [Vec<Measured>],
}

impl Judge<'_> {
    fn runs(&self, name: &str) -> Option<&[Measured]> {
        position(self.variants, name).map(|at| self.results[at].as_slice())
    }

    /// Ours to the best of the peers.
    fn bar(
        &self,
        name: &str,
        (ours, peers): (&str, &[&str]),
        of: fn(&Measured) -> f64,
        (wanted, aim): (f64, f64),
    ) -> Bar {
        let value = |runs: &[Measured]| median(&runs.iter().map(of).collect::<Vec<_>>());
        let peers = peers.iter().filter_map(|peer| Some((*peer, self.runs(peer)?)));
        let best = peers.min_by(|(_, one), (_, other)| value(one).total_cmp(&value(other)));
        let ratios = self.runs(ours).zip(best).map(|(ours, (_, theirs))| {
            ours.iter().zip(theirs).map(|(ours, theirs)| of(ours) / of(theirs)).collect()
        });
        let peer = best.map_or("none", |(peer, _)| peer).to_owned();
        Bar {
            name: name.to_owned(),
            peer,
            ratios: ratios.unwrap_or_default(),
            better: Better::Less,
            wanted,
            aim,
        }
    }

    fn memory(&self, ours: &str) -> Bar {
        let runs = self.runs(ours).unwrap_or_default();
        let ratios = runs.iter().map(|run| mebibytes(run.together) / MEMORY.0).collect();
        let (name, peer) = (format!("peak memory, {ours}"), format!("{} MiB", MEMORY.0));
        Bar { name, peer, ratios, better: Better::Less, wanted: 1.0, aim: MEMORY.1 / MEMORY.0 }
    }
}

fn wall(run: &Measured) -> f64 {
    run.wall.as_secs_f64()
}

fn cpu(run: &Measured) -> f64 {
    (run.client_cpu + run.server_cpu).as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "sizes in a table need three digits")]
fn stored(run: &Measured) -> f64 {
    run.size as f64
}

#[expect(clippy::cast_precision_loss, reason = "sizes in a table need three digits")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

pub(crate) fn backups(variants: &[Variant], results: &[Vec<Measured>]) -> Vec<Bar> {
    let judge = Judge { variants, results };
    // Tools that keep repositories; a bare stream checks no page and needs no manifest.
    let three = ["zst 3", "wal-rus zstd 3"];
    let one = ["zst 1", "wal-rus zstd 1"];
    vec![
        judge.bar("full, zstd 3", ("backup-cluster zstd 3", &three), wall, (0.9, 0.75)),
        judge.bar("full, zstd 1", ("backup-cluster zstd 1", &one), wall, (0.75, 0.55)),
        judge.bar("full, zstd 3, CPU seconds", ("backup-cluster zstd 3", &["zst 3"]), cpu, (0.95, 0.85)),
        judge.bar("full, zstd 3, bytes stored", ("backup-cluster zstd 3", &["zst 3"]), stored, (1.05, 1.0)),
        judge.memory("backup-cluster zstd 3"),
    ]
}

pub(crate) fn backups_to_s3(variants: &[Variant], results: &[Vec<Measured>]) -> Vec<Bar> {
    let judge = Judge { variants, results };
    let peers = ["zst 3 to S3", "wal-rus zstd 3 to S3"];
    vec![
        judge.bar("full to S3, zstd 3", ("backup-cluster zstd 3 to S3", &peers), wall, (0.9, 0.7)),
        judge.memory("backup-cluster zstd 3 to S3"),
    ]
}

pub(crate) fn restores(variants: &[Variant], results: &[Vec<Measured>]) -> Vec<Bar> {
    let judge = Judge { variants, results };
    vec![
        judge.bar("full restore", ("restore-cluster", &["pgBackRest", "wal-rus"]), wall, (1.0, 0.95)),
        judge.bar("full restore, beside cp -a", ("restore-cluster", &["cp -a"]), wall, (1.05, 1.0)),
        judge.memory("restore-cluster"),
    ]
}

pub(crate) fn deltas(variants: &[Variant], results: &[Vec<Measured>]) -> Vec<Bar> {
    let judge = Judge { variants, results };
    let peer = |what: &str| format!("--delta, {what}");
    let (intact, damaged) = (peer("intact"), peer("1 % damaged"));
    vec![
        judge.bar("delta restore, intact", ("restore-cluster, delta, intact", &[&intact]), wall, (0.8, 0.6)),
        judge.bar(
            "delta restore, 1 % damaged",
            ("restore-cluster, delta, 1 % damaged", &[&damaged]),
            wall,
            (0.7, 0.45),
        ),
    ]
}
