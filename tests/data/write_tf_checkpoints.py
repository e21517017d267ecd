"""Writes the checkpoints that tests/test_tf_checkpoint.py reads; needs TensorFlow.

python tests/data/write_tf_checkpoints.py   # with tensorflow-cpu 2.21.0, in here
"""

import os
import sys
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

import tensorflow as tf

KINDS = [
    *("float64", "float32", "float16", "bfloat16"),
    *("float8_e4m3fn", "float8_e5m2"),
    *("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8"),
    *("bool", "complex128", "complex64"),
]


def write_all(folder: Path) -> None:
    powers = tf.constant([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]])
    write(
        folder / "tf_dtypes",
        {kind: tf.cast(powers, tf.dtypes.as_dtype(kind)) for kind in KINDS}
        | {
            "scalar": tf.constant(2.5),
            "empty": tf.zeros((0, 7)),
            "text": tf.constant(["none", "of", "our", "business"]),
        },
    )
    # Enough names for an index whose block begins anew several times.
    many = {
        f"inpaint_net/a_layer_with_a_long_name_{i:03d}/kernel": tf.constant([i, -i])
        for i in range(60)
    }
    write(folder / "tf_many", many)
    # As `tf.compat.v1.train.Saver` does it for variables on two machines.
    parts = [folder / "tf_part0", folder / "tf_part1"]
    write(parts[0], {"first": tf.constant([1.0, 2.0])})
    write(parts[1], {"second": tf.constant([[3.0], [4.0]]), "third": tf.constant(5)})
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=[str(part) for part in parts],
        destination_prefix=str(folder / "tf_shards"),
        delete_old_dirs=False,
    )
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        weight = tf.compat.v1.get_variable("layer/kernel", initializer=[[1.0, 2.0]])
        loss = tf.reduce_sum(weight**2)
        optimizer = tf.compat.v1.train.AdamOptimizer(1e-3)
        train = optimizer.minimize(loss)
        session.run(tf.compat.v1.global_variables_initializer())
        session.run(train)
        saver = tf.compat.v1.train.Saver(save_relative_paths=True)
        target = str(folder / "tf_saver" / "snap")
        saver.save(session, target, 0, write_meta_graph=False)


def write(prefix: Path, arrays: dict[str, tf.Tensor]) -> None:
    names = list(arrays)
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[arrays[name] for name in names],
    )


if __name__ == "__main__":
    write_all(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
