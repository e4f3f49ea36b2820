"""Modules with weights of their own: SAEs, probes, norms, attention."""

import torch
import torch.nn.functional as F
from torch import nn

from snippets import randn, snippet
from weft.errors import OpError


def made(module):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in [*module.parameters(), *module.buffers()]:
            if parameter.is_floating_point():
                parameter.copy_(torch.rand(parameter.shape, generator=generator) * 0.5 + 0.1)
    return module.eval()


class SAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.W_enc, self.W_dec = nn.Parameter(torch.zeros(12, 40)), nn.Parameter(torch.zeros(40, 12))
        self.b_enc, self.b_dec = nn.Parameter(torch.zeros(40)), nn.Parameter(torch.zeros(12))

    def encode(self, x):
        return F.relu((x - self.b_dec) @ self.W_enc + self.b_enc)

    def forward(self, x):
        return self.encode(x) @ self.W_dec + self.b_dec


class TopK(SAE):
    def encode(self, x):
        values, indices = ((x - self.b_dec) @ self.W_enc).topk(4, dim=-1)
        return torch.zeros(*x.shape[:-1], 40).scatter(-1, indices, values.relu())


class JumpReLU(SAE):
    def encode(self, x):
        pre = (x - self.b_dec) @ self.W_enc
        return pre * (pre > 0.5)


SAE_, TOPK, JUMP = made(SAE()), made(TopK()), made(JumpReLU())
PROBE = made(nn.Linear(12, 2))
MLP = made(nn.Sequential(nn.Linear(12, 20), nn.GELU(), nn.Dropout(0.5), nn.Linear(20, 12)))
LAYER_NORM, RMS_NORM, GROUP_NORM = made(nn.LayerNorm(12)), made(nn.RMSNorm(12)), made(nn.GroupNorm(5, 5))
BATCH_NORM = made(nn.BatchNorm1d(12))
ATTENTION = made(nn.MultiheadAttention(12, 3, batch_first=True))
CONV, CONV_T = made(nn.Conv1d(12, 6, 3, padding=1)), made(nn.ConvTranspose1d(12, 4, 2))
EMBEDDING = made(nn.Embedding(9, 12))
BILINEAR = made(nn.Bilinear(12, 12, 3))
ENCODER = made(nn.TransformerEncoderLayer(12, 3, 20, batch_first=True, dropout=0.0))
DROPOUT = nn.Dropout(0.5)
LSTM = made(nn.LSTM(12, 4, batch_first=True))
GRU_CELL = made(nn.GRUCell(12, 6))
PRELU = made(nn.PReLU())
TRAINED_BN = nn.BatchNorm1d(12)


@snippet
def sae(h):
    return SAE_(h)


@snippet
def sae_splice(h):
    acts = SAE_.encode(h)
    error = h - SAE_(h)
    acts[..., 3] = 0
    h[:] = acts @ SAE_.W_dec + SAE_.b_dec + error


@snippet
def top_k_sae(h):
    return TOPK(h)


@snippet
def jump_relu_sae(h):
    return JUMP(h)


@snippet
def probe(h):
    return PROBE(h[:, -1]).softmax(-1)


@snippet
def mlp(h):
    return MLP(h)


@snippet
def norms(h):
    return LAYER_NORM(h), RMS_NORM(h), GROUP_NORM(h), F.layer_norm(h, (5, 12)), F.normalize(h, dim=-1)


@snippet
def batch_norm(h):
    return BATCH_NORM(h.transpose(1, 2))


@snippet
def instance_norm(h):
    return F.instance_norm(h)


@snippet
def attention(h):
    out, weights = ATTENTION(h, h, h)
    return out, weights


@snippet
def attention_without_weights(h):
    return ATTENTION(h, h, h, need_weights=False)[0]


@snippet
def causal_attention(h):
    mask = torch.ones(5, 5).triu(1).bool()
    return ATTENTION(h, h, h, attn_mask=mask, need_weights=False)[0]


@snippet(tolerance=1e-4)  # another kernel's order of summing
def transformer_layer(h):
    return ENCODER(h)


@snippet
def convolution(h):
    return CONV(h.transpose(1, 2)), CONV_T(h.mT), F.conv1d(h, torch.ones(3, 5, 2))


@snippet
def pooling(h):
    return F.max_pool1d(h, 2), F.avg_pool1d(h, 3), F.adaptive_avg_pool1d(h, 4), F.interpolate(h, 24)


@snippet
def embedding(h):
    return EMBEDDING(h.argmax(-1) % 9) + h, F.embedding(torch.tensor([1, 2]), EMBEDDING.weight) @ h[0].T


@snippet(raises=OpError, says="write it with others")
def bilinear(h, g):
    return BILINEAR(h, g)  # here


@snippet
def dropout_in_eval(h):
    return F.dropout(h, 0.5, training=False), nn.Dropout(0.5).eval()(h)


@snippet
def prelu(h):
    return PRELU(h)


@snippet
def gru_cell(h):
    state = torch.zeros(2, 6)
    for i in range(5):
        state = GRU_CELL(h[:, i], state)
    return state


@snippet(raises=OpError, says="session")
def dropout_in_training(h):
    return DROPOUT(h)  # here


@snippet(raises=OpError, says="eval")
def batch_norm_in_training(h):
    return TRAINED_BN(h.mT)  # here


@snippet
def module_made_inside(h):
    torch.manual_seed(0)
    layer = nn.Linear(12, 4)
    return layer(h)


@snippet
def buffers_and_state(h):
    state = PROBE.state_dict()
    return h @ state["weight"].T + state["bias"]


@snippet
def tied_weights(h):
    return F.linear(F.linear(h, SAE_.W_dec), SAE_.W_dec.T)


@snippet
def attention_by_hand(h):
    q, k, v = (h @ randn(12, 12, seed=i) for i in range(3))
    q, k, v = (x.view(2, 5, 3, 4).transpose(1, 2) for x in (q, k, v))
    scores = q @ k.transpose(-1, -2) / 4**0.5
    scores = scores.masked_fill(torch.ones(5, 5).triu(1).bool(), float("-inf"))
    return (scores.softmax(-1) @ v).transpose(1, 2).reshape(2, 5, 12)


@snippet
def fused_attention(h):
    q = h.view(2, 5, 3, 4).transpose(1, 2)
    masked = F.scaled_dot_product_attention(q, q, q, attn_mask=torch.eye(5).bool())
    return F.scaled_dot_product_attention(q, q, q, is_causal=True), masked
