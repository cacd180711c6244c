# The peer of train-step.ts: the same GPT-style model, batch and AdamW in PyTorch. Reads a number of steps a line from
# standard input, trains so many, and answers with the milliseconds that each took and the last loss.

import math
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F

V, T, B, D, L, H = 65, 64, 12, 128, 4, 4
torch.manual_seed(1337)
torch.set_num_threads(int(sys.argv[1]))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(D), nn.LayerNorm(D)
        self.qkv, self.proj = nn.Linear(D, 3 * D), nn.Linear(D, D)
        self.up, self.down = nn.Linear(D, 4 * D), nn.Linear(4 * D, D)
        self.register_buffer("mask", torch.tril(torch.ones(T, T)).view(1, 1, T, T))

    def forward(self, x):
        q, k, v = (t.view(B, T, H, D // H).transpose(1, 2) for t in self.qkv(self.ln1(x)).split(D, dim=2))
        scores = (q @ k.transpose(-2, -1)) / math.sqrt(D // H)
        probs = F.softmax(scores.masked_fill(self.mask == 0, float("-inf")), dim=-1)
        x = x + self.proj((probs @ v).transpose(1, 2).reshape(B, T, D))
        u = self.up(self.ln2(x))
        gelu = 0.5 * u * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (u + 0.044715 * torch.pow(u, 3.0))))
        return x + self.down(gelu)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(V, D), nn.Embedding(T, D)
        self.blocks = nn.ModuleList(Block() for _ in range(L))
        self.norm, self.head = nn.LayerNorm(D), nn.Linear(D, V, bias=False)

    def forward(self, ids):
        x = self.tokens(ids) + self.positions.weight
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


model = Model()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.1)
print("ready", flush=True)
for line in sys.stdin:
    n = int(line)
    times = []
    for _ in range(n):
        ids = torch.randint(V, (B, T + 1))
        start = time.perf_counter()
        loss = F.cross_entropy(model(ids[:, :-1]).reshape(-1, V), ids[:, 1:].reshape(-1))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        times.append((time.perf_counter() - start) * 1000)
    print(" ".join(f"{t:.3f}" for t in times), f"{loss.item():.4f}", flush=True)
