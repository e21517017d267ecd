"""Pictures for training: where they come from, in which order, and to the device.

`sources` reads single pictures, `order` says which one a batch needs where, `loader`
decodes batches of them on the host, `prefetch` puts those on the device and `augment`
crops, mirrors and masks them there, inside the jitted step. Nothing here imports
tensorflow_datasets until a `tfds:` set is opened.
"""
