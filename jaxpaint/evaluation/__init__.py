"""The survey's protocol: methods on the same pictures and masks, and what they score.

An evaluation is a folder. Every picture in it is a file of its own, written whole:

    settings.json            what was asked for
    truth/PICTURE.png        the squares
    masks/KIND/PICTURE.png   their holes in white
    results/ROW/KIND/PICTURE.png
    rows.jsonl, table.*, grid.png

Filling leaves alone what is there, and scoring reads nothing but files: an evaluation
that was interrupted goes on, and results of any other program are scored alike.
"""
