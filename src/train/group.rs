//! The processes of a run as one: they join, see that they were started alike, take every step of the start together, and
//! go on from the checkpoint that rank 0 chose. One process alone passes through without a word.

use std::fmt::Display;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use syncytia_launch::{World, exit};

use super::checkpoint;
use super::error::TrainError;
use super::ready::Resumed;
use super::run_folder::RunFolder;
use crate::engine::flight::FlightRecord;
use crate::engine::messages::{broadcast, gather};
use crate::engine::watchdog::{OnExpiry, Watched};

/// How long a rank looks for a checkpoint that rank 0 has seen: a network file system may show it late.
const LATE: Duration = Duration::from_secs(60);

/// This process among those of the run.
pub struct Group {
    /// Who it is.
    pub world: World,
    /// Its way to the others; none for a process alone.
    link: Option<Watched>,
}

/// What must be the same on every rank, by name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alike(pub Vec<(String, String)>);

/// The checkpoint that all go on from.
#[derive(Debug, Serialize, Deserialize)]
struct Choice {
    name: String,
    digest: String,
}

impl Group {
    /// A process alone.
    pub fn alone(world: World) -> Group {
        Group { world, link: None }
    }

    /// A process that `link` joins with the others.
    pub fn joined(world: World, link: Watched) -> Group {
        Group { world, link: Some(link) }
    }

    /// Whether this process has rank 0: it writes the run folder and speaks.
    pub fn leads(&self) -> bool {
        self.world.rank == 0
    }

    /// A step of the start that all take: when it fails on one, it has failed on all, at once and in that one's words.
    ///
    /// # Errors
    /// This rank's own; else [`TrainError::Elsewhere`] of the first rank that failed.
    pub fn together<T, E>(
        &mut self,
        what: &'static str,
        mine: Result<T, E>,
        code: impl FnOnce(&E) -> u8,
    ) -> Result<T, E>
    where
        E: Display + From<TrainError>,
    {
        let Some(link) = &mut self.link else { return mine };
        let message = mine.as_ref().err().map_or(String::new(), |e| format!("{e:#}"));
        let code = mine.as_ref().err().map_or(0, code);
        let mut bytes = vec![code];
        bytes.extend_from_slice(message.as_bytes());
        let all = gather(link, what, &bytes).map_err(TrainError::from)?;
        let failed = all.iter().position(|theirs| theirs[0] != 0);
        match (mine, failed) {
            (Err(error), _) => Err(error),
            (Ok(_), Some(rank)) => {
                let message = String::from_utf8_lossy(&all[rank][1..]).into_owned();
                Err(TrainError::Elsewhere { rank, what, message, code: all[rank][0] }.into())
            }
            (Ok(value), None) => Ok(value),
        }
    }

    /// Refuses ranks that differ in something that must be the same; names it, with both values.
    pub fn alike(&mut self, mine: &Alike) -> Result<(), TrainError> {
        let all: Vec<Alike> = self.each(mine)?;
        let mut problems = Vec::new();
        for (rank, theirs) in all.iter().enumerate() {
            let differ = all[0].0.iter().zip(&theirs.0).filter(|(first, other)| first != other);
            problems.extend(differ.map(|((what, a), (_, b))| format!("{what}: {a} on rank 0, {b} on rank {rank}")));
        }
        if problems.is_empty() { Ok(()) } else { Err(TrainError::NotAlike(problems)) }
    }

    /// Every rank's value, in rank order.
    pub fn each<T: Serialize + for<'de> Deserialize<'de> + Clone>(&mut self, mine: &T) -> Result<Vec<T>, TrainError> {
        let Some(link) = &mut self.link else { return Ok(vec![mine.clone()]) };
        let bytes = serde_json::to_vec(mine).expect("a message is plain data");
        let all = gather(link, "facts of the start", &bytes)?;
        let read = |bytes: &Vec<u8>| {
            serde_json::from_slice(bytes).map_err(|e| {
                TrainError::NotAlike(vec![format!("a message of the start is not understood ({e}): another version?")])
            })
        };
        all.iter().map(read).collect()
    }

    /// One decision: the checkpoint that rank 0 found and verified, or none, on every rank. The others load it by name and
    /// see that it is that very one.
    ///
    /// # Errors
    /// [`TrainError::Resume`] on a rank that does not find it.
    pub fn same_checkpoint(
        &mut self,
        mine: Option<Resumed>,
        folder: &RunFolder,
    ) -> Result<Option<Resumed>, TrainError> {
        let Some(link) = &mut self.link else { return Ok(mine) };
        let choice = mine.as_ref().map(|r| Choice { name: r.name.clone(), digest: r.digest.clone() });
        let bytes = serde_json::to_vec(&choice).expect("a choice is plain data");
        let told = broadcast(link, "checkpoint to go on from", &bytes)?;
        let choice: Option<Choice> = serde_json::from_slice(&told).expect("rank 0 runs this very program");
        let loaded = match (choice, mine) {
            (None, _) => Ok(None),
            (Some(_), Some(resumed)) => Ok(Some(resumed)),
            (Some(choice), None) => load(&choice, folder).map(Some),
        };
        self.together("loading the checkpoint", loaded, TrainError::exit_code)
    }

    /// This process's ranks: the one that joins the others, or else as many thread-ranks as `threads` makes.
    pub fn engines(self, threads: impl FnOnce() -> Vec<Watched>) -> Vec<Watched> {
        match self.link {
            Some(link) => vec![link],
            None => threads(),
        }
    }
}

fn load(choice: &Choice, folder: &RunFolder) -> Result<Resumed, TrainError> {
    let dir = folder.checkpoints().join(&choice.name);
    let began = Instant::now();
    loop {
        let problem = match checkpoint::load(&dir) {
            Ok(found) if found.manifest.digest() == choice.digest => {
                let Choice { name, digest } = choice;
                return Ok(Resumed { name: name.clone(), digest: digest.clone(), contents: found.contents });
            }
            Ok(found) => format!("its digest is {}, rank 0 saw {}", found.manifest.digest(), choice.digest),
            Err(error) => error.to_string(),
        };
        if began.elapsed() > LATE {
            let what = format!("{} as this rank sees it: {problem}; do all nodes share this folder?", dir.display());
            return Err(TrainError::Resume { run: folder.root().display().to_string(), what });
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// Writes a rank's flight record into the run folder; a disk that refuses is told, no more.
pub fn write_flight(folder: &RunFolder, record: &FlightRecord) {
    let path = folder.flight_record(record.rank);
    let text = serde_json::to_vec_pretty(record).expect("a record is plain data");
    match std::fs::create_dir_all(folder.log()).and_then(|()| std::fs::write(&path, text)) {
        Ok(()) => eprintln!("rank {}: the last operations are in {}", record.rank, path.display()),
        Err(error) => eprintln!("rank {}: cannot write {}: {error}", record.rank, path.display()),
    }
}

/// A moment for the other ranks to come to their own end and write their records: the first process that ends takes the
/// others along.
pub fn let_the_others_speak() {
    std::thread::sleep(Duration::from_secs(1));
}

/// What the watchdog does when a call into a library does not return: the error's words, the flight record, and the end of
/// the process without clean-up, which could wait again.
pub fn on_expiry(folder: &RunFolder) -> OnExpiry {
    let folder = folder.clone();
    Box::new(move |error, record| {
        eprintln!("error: {error}");
        write_flight(&folder, &record);
        let_the_others_speak();
        exit::now(TrainError::Engine(error.clone()).exit_code())
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use syncytia_launch::Launcher;

    use super::*;
    use crate::engine::ThreadsEngine;
    use crate::engine::peers::NoNews;

    /// Runs `f` as each of three processes.
    fn three<T: Send>(f: impl Fn(Group) -> T + Sync) -> Vec<T> {
        let engines = ThreadsEngine::group(3, Duration::from_secs(20));
        std::thread::scope(|scope| {
            let f = &f;
            let ranks = engines.into_iter().enumerate().map(|(rank, engine)| {
                let world = World { world_size: 3, rank: rank as u32, ..World::local() };
                assert_eq!(world.launcher, Launcher::Local);
                let link = Watched::recorded(Box::new(engine), Arc::new(NoNews));
                scope.spawn(move || f(Group::joined(world, link)))
            });
            let ranks: Vec<_> = ranks.collect();
            ranks.into_iter().map(|r| r.join().unwrap()).collect()
        })
    }

    #[test]
    fn what_fails_on_one_rank_has_failed_on_all_in_its_words_and_with_its_code() {
        let ends = three(|mut group| {
            let rank = group.world.rank;
            let fine = group.together("a first step", Ok::<_, TrainError>(rank), TrainError::exit_code);
            assert_eq!(fine.unwrap(), rank);
            let mine = if rank == 1 { Err(TrainError::Data("its disk is empty".into())) } else { Ok(rank) };
            group.together("opening the shards", mine, TrainError::exit_code).unwrap_err()
        });
        assert_eq!(ends[1].to_string(), "its disk is empty");
        for rank in [0, 2] {
            assert_eq!(ends[rank].to_string(), "rank 1 failed at opening the shards: its disk is empty");
            assert_eq!(ends[rank].exit_code(), 3);
        }
    }

    #[test]
    fn ranks_that_were_started_differently_are_refused_by_name() {
        let ends = three(|mut group| {
            let lr = if group.world.rank == 2 { "0.1" } else { "0.2" };
            let facts = |lr: &str| Alike(vec![("version".into(), "1".into()), ("optim.lr".into(), lr.into())]);
            group.alike(&facts("0.1")).unwrap();
            group.alike(&facts(lr)).unwrap_err().to_string()
        });
        assert!(ends.iter().all(|e| e.contains("optim.lr: 0.2 on rank 0, 0.1 on rank 2")), "{ends:?}");
    }
}
