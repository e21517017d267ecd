"""The training system: one loop for every method.

`loop.run` is the whole program; the other files are its parts: devices (`mesh`), the
jitted step (`step`), what is measured (`evaluation`), kept (`checkpoints`) and shown
(`report`, `figures`).
"""
