"""What one head says to another head's query, and nothing else: path patching, all other paths held still."""

import sys

import weft

CLEAN = "The Eiffel Tower is in Paris. The Eiffel Tower is in"
CORRUPT = "The Colosseum Bridge is in Rome. The Colosseum Bridge is in"
SENDER, RECEIVER = (0, 1), (1, 2)  # layer, head


def run(model):
    """How the sender moves the receiver's query and, through it alone, the logits at the last position."""
    (first, sender), (last, receiver) = SENDER, RECEIVER
    with model.session() as s:
        clean, corrupt = s.run(CLEAN), s.run(CORRUPT)

        direct = corrupt.fork()  # the sender changes; nothing between it and the receiver reacts
        direct.z[first][:, :, sender] = clean.z[first][:, :, sender]
        for layer in range(first, last):
            direct.mlp_out[layer] = corrupt.mlp_out[layer]
        for layer in range(first + 1, last):
            direct.attn_out[layer] = corrupt.attn_out[layer]

        patched = corrupt.fork()  # the receiver asks with the query that the sender made; all below is corrupted
        patched.q[last][:, :, receiver] = direct.q[last][:, :, receiver]

        (direct.q[last] - corrupt.q[last])[:, :, receiver].norm(dim=-1).save("query moved by")
        (patched.logits - corrupt.logits)[:, -1].save("logits moved by")
        weft.kl(patched.logits[:, -1], corrupt.logits[:, -1]).save("kl")
    return s.results


if __name__ == "__main__":
    model = weft.connect(sys.argv[1]).model("induction") if sys.argv[1:] else weft.load("induction")
    print({name: value.norm().item() for name, value in run(model).items()})
