"""A run on disk: the one owner of the format of a run directory.

    manifest.json        what was run: configuration, identity, machine, state     manifest.py, identity.py
    progress.parquet     one row per update                                        tables.py
    episodes.parquet     one row per finished training episode
    alignment.parquet    one row per damping of a snapshot of the alignment error
    evaluation.parquet   one row per evaluation episode
    checkpoint           everything that shapes what comes next                      checkpoint.py
    checkpoint.previous  the one before
    status.json          how it ended, written last                                manifest.py
    lock                 held by the process that trains here                      lock.py
    wandb/               what W&B wrote, with `tracker=wandb`                      wandb_tracker.py

`run.py` writes such a directory, `record.py` reads one, `compare.py` tells two apart. Every file is replaced
atomically (`files.py`), so all are readable at any instant, and checked where it is read (`schema.py`). Only
`checkpoint.py`, and through it `run.py` and `compare.py`, import torch.
"""
