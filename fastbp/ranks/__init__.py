"""Training by several processes, the ranks of an MPI communicator, with the bits of one.

- `messages` is how ranks talk: they wait for each other, and hear of an error of another one while they do.
- `exchange` moves pieces of arrays from the rank that has them to those that need them.
- `division` is a step: which rows of the batch and which parameters are a rank's own, and what moves between regions.
- `shards` brings the samples of a batch to the ranks that need them, where each rank holds some of the data.
- `world` is the ranks that a program was started as.
- `company` is what `fit` asks: of a process alone, or of one among several.
"""
