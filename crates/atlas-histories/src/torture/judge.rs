//! The judgement: the cloud's ledger against the records and events on disk. Nothing that a worker
//! said counts.

use std::collections::{BTreeMap, BTreeSet};

use atlas_core::AttemptId;
use atlas_orchestrator::kernel::SessionRecord;
use atlas_orchestrator::store::{Store, Table};
use atlas_orchestrator::{SessionId, SessionState};
use atlas_store_redb::Redb;
use atlas_testkit::world::{CloudLedger, LedgerLine, MachineState};

use crate::Score;

/// A run's score, and in words whatever is not as it must be.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) score: Score,
    pub(crate) complaints: Vec<String>,
}

/// What lies on disk after the last process has let go.
pub(crate) struct Books {
    sessions: Vec<SessionRecord>,
    by_attempt: BTreeMap<AttemptId, SessionId>,
    gaps: Vec<String>,
}

impl Books {
    /// Reads them.
    pub(crate) async fn read(store: &Redb) -> atlas_core::Result<Self> {
        let rows = store.scan(Table::Sessions, &[], None, usize::MAX).await?;
        let sessions = rows
            .iter()
            .map(|row| SessionRecord::decode(&row.value))
            .collect::<atlas_core::Result<Vec<_>>>()?;
        let mut by_attempt = BTreeMap::new();
        let mut gaps = Vec::new();
        for session in &sessions {
            by_attempt.extend(
                session
                    .attempts
                    .iter()
                    .map(|attempt| (attempt.id, session.id)),
            );
            let seqs: Vec<u64> = store
                .events(*session.id.as_bytes(), 0, usize::MAX)
                .await?
                .iter()
                .map(|event| event.seq)
                .collect();
            if !seqs.iter().copied().eq(1..=session.last_seq) {
                gaps.push(format!(
                    "the log of session {} holds {seqs:?} and should hold 1 to {}",
                    session.id, session.last_seq
                ));
            }
        }
        Ok(Self {
            sessions,
            by_attempt,
            gaps,
        })
    }

    /// Compares them with the ledger of a moment at which nothing was under way.
    pub(crate) fn judge(&self, ledger: &CloudLedger, verdict: &mut Verdict) {
        let owner = |line: &LedgerLine| self.by_attempt.get(&line.launch_key?.attempt()).copied();
        let serving: BTreeMap<&str, SessionId> = self.sessions.iter().filter_map(serving).collect();
        let live: BTreeSet<&str> = ledger
            .machines
            .iter()
            .filter(|line| is_live(line))
            .map(|line| line.id.as_str())
            .collect();
        let mut say = |what: String| verdict.complaints.push(what);

        for id in live.iter().filter(|id| !serving.contains_key(**id)) {
            verdict.score.leaked += 1;
            say(format!("machine {id} lives, and no live session has it"));
        }
        for line in ledger.machines.iter().filter(|line| owner(line).is_none()) {
            verdict.score.leaked += usize::from(!is_live(line));
            say(format!(
                "machine {} was made, and no attempt on record made it",
                line.id
            ));
        }
        for session in self
            .sessions
            .iter()
            .filter(|session| session.ending.is_none())
        {
            let has = session
                .serving()
                .and_then(|attempt| attempt.serving.as_ref());
            if has.is_none_or(|id| !live.contains(id.as_str())) {
                verdict.score.lost += 1;
                say(format!(
                    "session {} is {} and has no living machine",
                    session.id,
                    session.state().as_str()
                ));
            }
        }
        let mut made: BTreeMap<SessionId, Vec<&LedgerLine>> = BTreeMap::new();
        for line in &ledger.machines {
            if let Some(session) = owner(line) {
                made.entry(session).or_default().push(line);
            }
        }
        for (session, lines) in made {
            let overlap = |a: &LedgerLine, b: &LedgerLine| {
                let ends_after = |first: &LedgerLine, second: &LedgerLine| {
                    first
                        .destroyed_at
                        .is_none_or(|gone| gone > second.created_at)
                };
                ends_after(a, b) && ends_after(b, a)
            };
            if lines
                .iter()
                .enumerate()
                .any(|(index, a)| lines[index + 1..].iter().any(|b| overlap(a, b)))
            {
                verdict.score.double += 1;
                say(format!(
                    "session {session} had two machines at one time: {lines:?}"
                ));
            }
        }
        verdict.score.event_gaps += self.gaps.len();
        verdict.complaints.extend(self.gaps.iter().cloned());
    }

    /// How many sessions there are, and how many of them live.
    pub(crate) fn sizes(&self) -> (usize, usize) {
        (
            self.sessions.len(),
            self.sessions
                .iter()
                .filter(|session| session.state() != SessionState::Terminated)
                .count(),
        )
    }
}

fn serving(session: &SessionRecord) -> Option<(&str, SessionId)> {
    let attempt = session.serving().filter(|_| session.ending.is_none())?;
    attempt.serving.as_ref().map(|id| (id.as_str(), session.id))
}

pub(crate) fn is_live(line: &LedgerLine) -> bool {
    line.state != MachineState::Destroyed
}

#[cfg(test)]
mod tests {
    use super::*;
    use atlas_core::{Entropy, SeededEntropy, Timestamp, Usd};
    use atlas_orchestrator::realm::Realm;
    use serde_json::json;

    const SECRET: &str = "0f9kXq27LmZt5cRvB1yHdWn8GsEoPa3J-torture";

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(1_795_219_200 + seconds)
    }

    /// A live session with one serving machine `m1`, its record, and a key of one more order of it.
    fn books() -> (Books, [atlas_core::TrackedKey; 2]) {
        let realm = Realm::new(&atlas_core::Secret::new(SECRET)).unwrap();
        let entropy: &dyn Entropy = &SeededEntropy::new(7);
        let keys = [
            realm.mint_key(at(0), entropy),
            realm.mint_key(at(1), entropy),
        ];
        let attempt = |key: &atlas_core::TrackedKey, phase: &str| {
            json!({ "id": key.attempt(),
            "key": key, "account": "runpod", "created_at": at(0), "phase": phase })
        };
        let mut first = attempt(&keys[0], "live");
        first["serving"] = "m1".into();
        let record = json!({
            "id": SessionId::new(at(0), entropy), "owner": "local", "account": "runpod",
                "provider": "runpod", "options": {},
            "created_at": at(0), "attempts": [first, attempt(&keys[1], "absent")], "last_seq": 3,
        });
        let session = SessionRecord::decode(record.to_string().as_bytes()).unwrap();
        let by_attempt = session
            .attempts
            .iter()
            .map(|attempt| (attempt.id, session.id))
            .collect();
        (
            Books {
                sessions: vec![session],
                by_attempt,
                gaps: Vec::new(),
            },
            keys,
        )
    }

    fn line(id: &str, key: Option<atlas_core::TrackedKey>, life: (i64, Option<i64>)) -> LedgerLine {
        LedgerLine {
            id: id.to_owned(),
            name: id.to_owned(),
            state: if life.1.is_some() {
                MachineState::Destroyed
            } else {
                MachineState::Running
            },
            launch_key: key,
            created_at: at(life.0),
            destroyed_at: life.1.map(at),
            billed_usd: Usd::ZERO,
        }
    }

    fn judged(books: &Books, machines: Vec<LedgerLine>) -> (usize, usize, usize, usize, usize) {
        let mut verdict = Verdict::default();
        books.judge(
            &CloudLedger {
                machines,
                ..CloudLedger::default()
            },
            &mut verdict,
        );
        let score = verdict.score;
        (
            score.leaked,
            score.lost,
            score.double,
            score.event_gaps,
            verdict.complaints.len(),
        )
    }

    #[test]
    fn a_session_with_its_one_machine_is_as_it_must_be_and_each_loss_is_counted() {
        let (mut books, [key, other]) = books();
        let own = || line("m1", Some(key), (5, None));
        assert_eq!(
            judged(&books, vec![own(), line("m0", Some(other), (1, Some(4)))]),
            (0, 0, 0, 0, 0)
        );
        assert_eq!(
            judged(&books, vec![own(), line("m2", None, (6, None))]),
            (1, 0, 0, 0, 2),
            "leaked"
        );
        assert_eq!(
            judged(&books, vec![own(), line("m2", None, (6, Some(9)))]),
            (1, 0, 0, 0, 1),
            "made without a record"
        );
        assert_eq!(
            judged(&books, vec![line("m1", Some(key), (5, Some(9)))]),
            (0, 1, 0, 0, 1),
            "lost"
        );
        assert_eq!(
            judged(&books, vec![own(), line("m0", Some(other), (1, Some(6)))]),
            (0, 0, 1, 0, 1),
            "double"
        );
        assert_eq!(
            judged(&books, vec![own(), line("m2", Some(key), (6, None))]),
            (1, 0, 1, 0, 2),
            "double and leaked"
        );
        books.gaps.push("a gap".to_owned());
        assert_eq!(judged(&books, vec![own()]), (0, 0, 0, 1, 1), "gap");
    }
}
