"""RetroMAE's decoder of a BERT as a loop over positions, heads and visible places."""

import numpy as np
from scipy.special import erf


def layer_norm(x, p):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt(np.mean(x**2, -1, keepdims=True) + 1e-6) * p["scale"] + p["bias"]


def linear(x, p):
    return x @ p["kernel"] + p["bias"]


def decoded(params, query, seen, visible, heads):
    """States `[l d]` of one text; parameters are those of `EnhancedDecoder`, in float64."""
    block, states = params["block"], []
    attention, mlp = block["attention"], block["mlp"]
    for i in range(len(query)):
        places = [j for j in range(len(seen)) if visible[i, j]]
        q = np.split(linear(query[i], attention["query"]), heads)
        mixed = []
        for head in range(heads):
            keys = [np.split(linear(seen[j], attention["key"]), heads)[head] for j in places]
            values = [np.split(linear(seen[j], attention["value"]), heads)[head] for j in places]
            weights = np.exp([np.dot(q[head], k) / np.sqrt(len(k)) for k in keys])
            mixed.append(sum(w * v for w, v in zip(weights / weights.sum(), values, strict=True)))
        x = layer_norm(query[i] + linear(np.concatenate(mixed), attention["output"]), block["attention_norm"])
        inner = linear(x, mlp["up"])
        inner = inner * 0.5 * (1 + erf(inner / np.sqrt(2)))
        states.append(layer_norm(x + linear(inner, mlp["down"]), block["mlp_norm"]))
    return np.stack(states)
