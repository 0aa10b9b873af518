use super::*;

/// Variables as a line of a shell: `A=1 B=2`.
fn env(line: &str) -> impl Fn(&str) -> Option<String> {
    let pairs: Vec<(String, String)> =
        line.split_whitespace().filter_map(|p| p.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect();
    move |name| pairs.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone())
}

fn world(line: &str) -> World {
    World::from_env(env(line), None).unwrap()
}

fn check(line: &str, launcher: Launcher, rank: u32, world_size: u32, local_rank: u32) {
    let found = world(line);
    let numbers = (found.launcher, found.rank, found.world_size, found.local_rank);
    assert_eq!(numbers, (launcher, rank, world_size, local_rank), "{line}");
}

fn refused(line: &str, choice: Option<LauncherChoice>) -> String {
    World::from_env(env(line), choice).unwrap_err().to_string()
}

/// The batch shell of a two-node job under Slurm 22.05, with what its script inherits.
const BATCH: &str = "SLURM_JOB_ID=6 SLURM_JOBID=6 SLURM_JOB_NODELIST=n[1-2] SLURM_NODELIST=n[1-2] SLURM_NTASKS=2 \
    SLURM_NPROCS=2 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0 SLURM_GTIDS=0 SLURM_TASKS_PER_NODE=1(x2) \
    SLURM_NTASKS_PER_NODE=1 SLURM_OPEN_MODE=a SLURMD_NODENAME=n1 SLURM_TASK_PID=4711 SLURM_CLUSTER_NAME=ci";

/// The second task of `srun` in that job.
const TASK: &str = "SLURM_JOB_ID=6 SLURM_JOBID=6 SLURM_JOB_NODELIST=n[1-2] SLURM_NTASKS=2 SLURM_NPROCS=2 \
    SLURM_STEP_ID=0 SLURM_STEPID=0 SLURM_STEP_NUM_TASKS=2 SLURM_STEP_NUM_NODES=2 SLURM_STEP_NODELIST=n[1-2] \
    SLURM_STEP_TASKS_PER_NODE=1(x2) SLURM_PROCID=1 SLURM_LOCALID=0 SLURM_NODEID=1 SLURM_GTIDS=1 SLURMD_NODENAME=n2 \
    SLURM_LAUNCH_NODE_IPADDR=10.77.0.1 SLURM_SRUN_COMM_HOST=10.77.0.1 SLURM_SRUN_COMM_PORT=40113";

#[test]
fn every_launcher_is_read_by_its_own_variables() {
    check("", Launcher::Local, 0, 1, 0);
    check("SLURM_STEP_NUM_TASKS=4 SLURM_PROCID=3 SLURM_LOCALID=1", Launcher::Slurm, 3, 4, 1);
    check("OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_LOCAL_RANK=1", Launcher::OpenMpi, 1, 2, 1);
    check("MV2_COMM_WORLD_SIZE=2 MV2_COMM_WORLD_RANK=1 MV2_COMM_WORLD_LOCAL_RANK=0", Launcher::Mvapich, 1, 2, 0);
    check("PMI_SIZE=3 PMI_RANK=2 MPI_LOCALRANKID=0 MPI_LOCALNRANKS=1", Launcher::Pmi, 2, 3, 0);
    check("WORLD_SIZE=8 RANK=5 LOCAL_RANK=1", Launcher::Torchrun, 5, 8, 1);
    check(TASK, Launcher::Slurm, 1, 2, 0);
    check(&format!("{TASK} PMI_FD=13 PMI_RANK=1 PMI_SIZE=2 PMI_JOBID=6.0"), Launcher::Pmi, 1, 2, 0);
    let pmix = "PMIX_RANK=1 PMIX_NAMESPACE=slurm.pmix.6.0 PMIX_VERSION=4.2.2";
    check(&format!("{TASK} {pmix}"), Launcher::Pmix, 1, 2, 0);
}

#[test]
fn a_shell_inside_a_job_is_one_process_whatever_the_job_is_large() {
    check(BATCH, Launcher::Local, 0, 1, 0);
    // a notebook server started by the batch script
    check(&format!("{BATCH} JPY_PARENT_PID=4730 JUPYTER_RUNTIME_DIR=/tmp"), Launcher::Local, 0, 1, 0);
    // salloc of 22.05: a shell on the login node
    let salloc = "SLURM_JOB_ID=7 SLURM_JOB_NODELIST=n[1-4] SLURM_NTASKS=16 SLURM_NPROCS=16 SLURM_NTASKS_PER_NODE=4 \
        SLURM_SUBMIT_HOST=login1 SLURM_TASKS_PER_NODE=4(x4)";
    check(salloc, Launcher::Local, 0, 1, 0);
    // salloc with use_interactive_step; the site's MpiDefault is pmix
    let interactive = "SLURM_STEP_ID=4294967290 SLURM_STEPID=4294967290 SLURM_STEP_NODELIST=n1 \
        SLURM_STEP_NUM_TASKS=1 SLURM_STEP_NUM_NODES=1 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_PTY_PORT=40001";
    check(&format!("{salloc} {interactive} PMIX_RANK=0"), Launcher::Local, 0, 1, 0);
    check(&format!("{BATCH} SLURM_STEP_ID=4294967291 SLURM_STEP_NUM_TASKS=2"), Launcher::Local, 0, 1, 0);
    check(&format!("{BATCH} SLURM_STEP_ID=4294967292 SLURM_STEP_NUM_TASKS=2"), Launcher::Local, 0, 1, 0);
    // mpirun typed into that shell
    let ompi = "OMPI_COMM_WORLD_SIZE=16 OMPI_COMM_WORLD_RANK=6 OMPI_COMM_WORLD_LOCAL_RANK=2";
    check(&format!("{salloc} {interactive} {ompi} PMIX_RANK=6"), Launcher::OpenMpi, 6, 16, 2);
}

#[test]
fn one_task_inside_a_larger_allocation_is_one_process() {
    check("SLURM_NTASKS=1 SLURM_STEP_NUM_TASKS=1 SLURM_PROCID=0 SLURM_LOCALID=0", Launcher::Slurm, 0, 1, 0);
    // srun -n1 --pty bash in an allocation of four
    let pty = "SLURM_JOB_ID=7 SLURM_JOB_NUM_NODES=4 SLURM_NTASKS=1 SLURM_STEP_ID=2 SLURM_STEP_NUM_TASKS=1 \
        SLURM_STEP_NODELIST=n1 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_PTY_PORT=40001 SLURM_PTY_WIN_COL=120";
    check(pty, Launcher::Slurm, 0, 1, 0);
}

#[test]
fn a_launcher_inside_a_step_wins_over_the_step() {
    // mpirun's daemons run one per node: the inherited step variables count nodes
    let ompi = "OMPI_COMM_WORLD_SIZE=8 OMPI_COMM_WORLD_RANK=6 OMPI_COMM_WORLD_LOCAL_RANK=2 PMIX_RANK=6";
    check(&format!("{TASK} {ompi}"), Launcher::OpenMpi, 6, 8, 2);
    // on the first node mpirun forks its ranks itself: only the batch shell's variables are there
    check(&format!("{BATCH} {ompi}"), Launcher::OpenMpi, 6, 8, 2);
    check(&format!("{TASK} WORLD_SIZE=8 RANK=6 LOCAL_RANK=2"), Launcher::Torchrun, 6, 8, 2);
    check(&format!("{TASK} PMI_SIZE=8 PMI_RANK=6 MPI_LOCALRANKID=2"), Launcher::Pmi, 6, 8, 2);
}

#[test]
fn an_exported_world_size_alone_is_no_launcher() {
    check("WORLD_SIZE=8", Launcher::Local, 0, 1, 0);
}

#[test]
fn contradictions_are_refused_with_the_names_of_the_variables() {
    let refused = |line: &str| refused(line, None);
    assert!(refused("SLURM_STEP_NUM_TASKS=2").contains("SLURM_PROCID is not"));
    assert!(refused("SLURM_STEP_NUM_TASKS=2 SLURM_PROCID=0").contains("SLURM_LOCALID is not"));
    assert!(refused("SLURM_STEP_NUM_TASKS=two SLURM_PROCID=0").contains("\"two\""));
    assert!(refused("PMI_SIZE=2 PMI_RANK=2 MPI_LOCALRANKID=0").contains("PMI_RANK=2 does not fit PMI_SIZE=2"));
    assert!(refused("SLURM_STEP_NUM_TASKS=0 SLURM_PROCID=0 SLURM_LOCALID=0").contains("does not fit"));
    assert!(refused(&format!("{TASK} PMI_SIZE=8 PMI_RANK=6")).contains("MPI_LOCALRANKID is not"));
    // a bare prterun tells no size; inside a step it counts differently
    assert!(refused("PMIX_RANK=3").contains("SLURM_STEP_NUM_TASKS is not"));
    assert!(refused(&format!("{TASK} PMIX_RANK=0")).contains("PMIX_RANK=0 but SLURM_PROCID=1"));
}

#[test]
fn the_user_may_say_whom_to_believe() {
    let both = format!("{TASK} WORLD_SIZE=8 RANK=6 LOCAL_RANK=2");
    let chosen = |line: &str, choice: &str| World::from_env(env(line), Some(choice.parse().unwrap())).unwrap();
    assert_eq!(chosen(&both, "env").rank, 6);
    assert_eq!(chosen(&both, "slurm").rank, 1);
    assert_eq!(chosen(&both, "local"), World::local());
    assert_eq!(chosen(&format!("{TASK} PMIX_RANK=1"), "mpi").launcher, Launcher::Pmix);
    assert_eq!(
        refused(&both, Some(LauncherChoice::Mpi)).split(';').next(),
        Some(
            "--launcher mpi: looked for MPI_LOCALRANKID, MV2_COMM_WORLD_LOCAL_RANK, MV2_COMM_WORLD_RANK, \
             MV2_COMM_WORLD_SIZE, OMPI_COMM_WORLD_LOCAL_RANK, OMPI_COMM_WORLD_RANK, OMPI_COMM_WORLD_SIZE, PMIX_RANK, \
             PMI_RANK, PMI_SIZE, SLURM_LOCALID, SLURM_STEP_NUM_TASKS, found only SLURM_LOCALID, SLURM_STEP_NUM_TASKS"
        )
    );
    assert!(refused(BATCH, Some(LauncherChoice::Slurm)).contains("found only SLURM_LOCALID, SLURM_PROCID"));
    assert!(refused("", Some(LauncherChoice::Env)).contains("looked for LOCAL_RANK, RANK, WORLD_SIZE, found none"));
    let unknown = "torch".parse::<LauncherChoice>().unwrap_err().to_string();
    assert_eq!(unknown, "unknown launcher `torch`: choose slurm, mpi, env or local");
}

#[test]
fn the_log_says_who_launched_and_how_we_know() {
    let words = world("SLURM_STEP_NUM_TASKS=4 SLURM_PROCID=3 SLURM_LOCALID=1 SLURMD_NODENAME=n2").source();
    assert_eq!(words, "rank 3 of 4 (local rank 1 on n2), from srun: SLURM_STEP_NUM_TASKS=4 SLURM_PROCID=3");
    assert!(world(BATCH).source().starts_with("one process on "));
    // Hydra hands the first node's variables to all nodes
    let hydra = world(&format!("{BATCH} PMI_SIZE=2 PMI_RANK=1 MPI_LOCALRANKID=0"));
    assert_eq!(hydra.node, host_name());
    assert!(!host_name().is_empty());
}

#[test]
fn peers_meet_at_the_first_host_of_the_step() {
    let meets = |line: &str| world(line).rendezvous(env(line)).unwrap();
    let port = step_port(6, 0);
    assert_eq!(meets(TASK), Some(format!("n1:{port}")));
    assert_eq!(meets(&format!("{TASK} PMIX_RANK=1")), Some(format!("n1:{port}")));
    assert_eq!(meets(&format!("{TASK} SYNCYTIA_STORE=10.0.0.9:4000")), Some("10.0.0.9:4000".into()));
    let torchrun = format!("{TASK} WORLD_SIZE=8 RANK=6 LOCAL_RANK=2 MASTER_PORT=29500");
    assert_eq!(meets(&format!("{torchrun} MASTER_ADDR=n7")), Some("n7:29501".into()));
    assert_eq!(meets(&format!("{torchrun} MASTER_ADDR=fd00::1")), Some("[fd00::1]:29501".into()));
    assert_eq!(meets(BATCH), None);
    // mpirun's ranks see other step variables on every node: MPI itself must tell them
    let ompi = "OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_LOCAL_RANK=0";
    assert_eq!(meets(&format!("{TASK} {ompi}")), None);

    let refused = |line: &str| world(line).rendezvous(env(line)).unwrap_err().to_string();
    assert!(refused("SYNCYTIA_STORE=n1").contains("SYNCYTIA_STORE=\"n1\" is not host:port"));
    assert!(refused("SYNCYTIA_STORE=n1:0").contains("is not host:port"));
    assert!(refused(&TASK.replace("n[1-2]", "n[1-")).contains("SLURM_STEP_NODELIST: cannot read the list `n[1-`"));
}

#[test]
fn the_port_depends_on_job_and_step_and_stays_in_its_range() {
    // written down: two nodes must not look for each other at different ports
    assert_eq!([step_port(6, 0), step_port(6, 1), step_port(4_294_967_295, 0)], [20_006, 27_925, 27_295]);
    let ports: std::collections::BTreeSet<u16> = (123_456..133_456).map(|job| step_port(job, 3)).collect();
    assert!(ports.iter().all(|port| (20_000..30_000).contains(port)));
    assert_eq!(ports.len(), 10_000, "neighbours in the queue collide");
}

#[test]
fn a_generation_names_one_start_of_one_step() {
    let named = |line: &str| world(line).generation(env(line)).unwrap();
    assert_eq!(named(TASK), Some("6.0.0".into()));
    assert_eq!(named(&format!("{TASK} SLURM_RESTART_COUNT=2")), Some("6.0.2".into()));
    let element = "SLURM_ARRAY_JOB_ID=5 SLURM_ARRAY_TASK_ID=1";
    assert_eq!(named(&format!("{TASK} {element}")), Some("5_1.0.0".into()));
    let torchrun = "WORLD_SIZE=8 RANK=6 LOCAL_RANK=2 TORCHELASTIC_RUN_ID=night TORCHELASTIC_RESTART_COUNT=1";
    assert_eq!(named(&format!("{TASK} {torchrun}")), Some("night.1".into()));
    assert_eq!(named("WORLD_SIZE=8 RANK=6 LOCAL_RANK=2"), None);
    assert_eq!(named(BATCH), None);
}

#[test]
fn several_processes_are_refused_in_words() {
    assert_eq!(World::local().require_single(), Ok(()));
    let words = world("WORLD_SIZE=2 RANK=1 LOCAL_RANK=1").require_single().unwrap_err().to_string();
    assert!(words.contains("no engine for 2 processes (found by torchrun, rank 1)"), "{words}");
    assert!(words.contains("--ranks N"), "{words}");
}

#[test]
fn a_job_carries_the_id_that_requeue_takes_and_its_life() {
    let job = |line: &str| Job::from_env(env(line)).unwrap();
    assert_eq!(job(""), None);
    assert_eq!(job("SLURM_JOB_ID=77"), Some(Job { id: "77".into(), restart_count: 0 }));
    let array = "SLURM_JOB_ID=79 SLURM_ARRAY_JOB_ID=78 SLURM_ARRAY_TASK_ID=1 SLURM_RESTART_COUNT=2";
    assert_eq!(job(array), Some(Job { id: "78_1".into(), restart_count: 2 }));
}

#[test]
fn a_process_that_we_start_knows_itself_and_where_the_others_are() {
    let told = World::variables(2, 3, 21_234, "this start");
    let vars = |name: &str| told.iter().find(|(n, _)| *n == name).map(|(_, value)| value.clone());
    let found = World::from_env(vars, None).unwrap();
    assert_eq!((found.rank, found.world_size, found.local_rank), (2, 3, 2));
    assert_eq!(found.rendezvous(vars).unwrap().as_deref(), Some("127.0.0.1:21234"));
    assert_eq!(found.generation(vars).unwrap().as_deref(), Some("this start.0"));
}
