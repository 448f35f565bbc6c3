"""Train one algorithm on one task with one seed.

    python train.py algorithm=trpo env=halfcheetah seed=0 total_steps=1000000

Exit codes: 0 finished, or stop_after reached; 1 failed, with the reason in status.json; 2 settings refused before any
compute; 3 run_dir holds a run of another identity or format, or one that cannot be read; 4 another process holds
run_dir; 5 failed for want of disk or memory; 6 not the run that `identity` names; 130 and 143 stopped by SIGINT and
SIGTERM. After 1, 5, 130, 143 and any kill the same command goes on from the last checkpoint.
With -m every combination of `algorithm=ppo,trpo seed=0,1` is trained, one after the other (command/sweep.py).
"""

from command.interrupt import Interrupt

if __name__ == "__main__":
    interrupt = Interrupt()
    interrupt.listen()  # before the imports behind `cli`, which take seconds
    from command.cli import cli

    cli(interrupt)
