"""The mathematics of AudioCALM in torch, on one device.

Read the model bottom up: `config`, `sequence`, `attention`, `experts`, `backbone`, `flow`,
`heads`, `audiocalm`; then `batch` and `objective` for training, `inference` for sampling. `fast`
holds quicker forms of the same functions, `bundle` the product around the model, `codec` the
autoencoders. The import contracts in pyproject.toml state this order.

Axes of tensors:
    batch: Documents packed in rows in training; requests in sampling.
    rows: Sequences that the backbone runs in sampling: the conditional row of each request,
        followed by its unconditional row under guidance.
    seq: Positions of a row: text, clean frames and noisy frames.
    keys, places: Positions that are attended to; places of the cache.
    frames, block_frames: Latent frames of a clip, of one block.
    blocks, copies: Blocks of a clip, noisy copies of a block.
    tokens: Positions of all rows, flattened.
    latent_dim, hidden, head_dim: Widths of a latent, a hidden state, an attention head.
    heads, kv_heads: Query heads; key and value heads, each shared by a group of query heads.
    channels, samples: Audio channels and waveform samples.
"""
