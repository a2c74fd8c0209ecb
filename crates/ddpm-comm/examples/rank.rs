//! One rank of the tests in tests/ranks.rs: `rank SCENARIO [CODE]`, started by mpirun.

use std::io::Write;
use std::process::Command;
use std::thread;
use std::time::Duration;

use ddpm_comm::{Averager, Buffer, Reduce, World, abort, install_panic_hook, set_step};

#[path = "../tests/suite/mod.rs"]
mod suite;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let scenario = args.first().map_or("", String::as_str);
    let code = args.get(1).map_or(0, |code| code.parse().expect("CODE is a number"));

    let world = World::init().unwrap_or_else(|error| abort(2, &error.to_string()));
    install_panic_hook();
    say(&format!("pid {}", std::process::id()));
    let comm = world.collective();
    comm.barrier();

    // Rank 1 fails at step 12, while its peers wait for it in an all-reduce.
    let mut grads = vec![1.0; 100_000];
    comm.all_reduce(&mut grads, Reduce::Mean);
    set_step(12);
    let failing = world.rank() == 1;
    match scenario {
        "suite" => suite::check(&comm),
        "finish" => {}
        "links" => {
            for link in world.measure_links() {
                let plausible = (1e-8..1.0).contains(&link.latency_s)
                    && (1e6..1e12).contains(&link.bytes_per_s)
                    && link.skew_s.abs() < 0.5;
                say(&format!("rank {}: {} to {}: {plausible}", world.rank(), link.from, link.to));
            }
        }
        "panic" if failing => panic!("an index\nout of range"),
        "thread-panic" if failing => {
            let _ = thread::spawn(|| panic!("a worker failed")).join();
        }
        "abort" if failing => abort(code, "no space left on the disk"),
        "leave" if failing => return,
        "die" if failing => signal("KILL"),
        "wait" => {
            say("waiting");
            if failing {
                thread::sleep(Duration::from_secs(600));
            }
        }
        "freeze" | "freeze-at-end" => {
            world.watch(Duration::from_secs(3600));
            world.watch(Duration::from_millis(1500));
            if failing {
                signal("STOP");
            }
            if scenario == "freeze-at-end" {
                world.finish(0);
            }
        }
        "freeze-in-bucket" => {
            world.watch(Duration::from_millis(1500));
            let ones = |len| vec![1.0; len];
            let mut averager =
                Averager::new(comm.clone(), &[2, 2], 2, move |range, body| body(Buffer::Host(&mut ones(range.len()))));
            averager.begin();
            averager.ready()(1);
            if failing {
                // After the last bucket is done on all ranks: only then does rank 0 begin the first one.
                thread::sleep(Duration::from_millis(200));
                signal("STOP");
            }
            averager.finish();
        }
        _ => {}
    }
    comm.all_reduce(&mut grads, Reduce::Mean);
    if scenario == "location" {
        say(&format!(
            "rank {} of {}, {} of {} on {}",
            world.rank(),
            world.size(),
            world.local_rank(),
            world.local_size(),
            world.host()
        ));
    }
    say("done");
    world.finish(code)
}

/// One write per line, so that the ranks' lines do not mix.
fn say(line: &str) {
    std::io::stdout().write_all(format!("{line}\n").as_bytes()).expect("stdout is open");
}

fn signal(name: &str) {
    let pid = std::process::id().to_string();
    let status = Command::new("kill").arg(format!("-{name}")).arg(pid).status();
    assert!(status.expect("kill is installed").success());
}
