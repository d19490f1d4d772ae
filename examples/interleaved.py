"""The core alone: a Mixture-of-Transformers over interleaved texts and pictures, trained on a toy task.

Each sequence mixes "text" and "image" tokens. The last token must say the sum of all the image tokens'
numbers, which only attention across modalities can tell. Run: python examples/interleaved.py
"""

import torch
from torch import nn

from motet.nn import BlockConfig, MixtureOfTransformers, MoTConfig, RotaryConfig, count_parameters
from motet.types import Layout

NAMES, WIDTH, LENGTH, SAMPLES = ("text", "image"), 64, 12, 64


def batch(seed: int) -> tuple[Layout, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Packed values (T,), the layout, the packed places of each sample's last token, and the answers."""
    g = torch.Generator().manual_seed(seed)
    modality = torch.randint(0, 2, (SAMPLES, LENGTH), generator=g)
    modality[:, -1] = 0  # the asking token is a text
    value = torch.randint(-3, 4, (SAMPLES, LENGTH), generator=g).float()
    answer = (value * modality).sum(1)
    sample = torch.arange(SAMPLES).repeat_interleave(LENGTH)
    layout, order = Layout.build(NAMES, modality.flatten(), sample)
    asks = (layout.position == LENGTH - 1).nonzero().flatten()  # the asking tokens, by sample
    return layout, value.flatten()[order], asks, answer[layout.sample[asks]]


def main() -> None:
    torch.manual_seed(0)
    config = MoTConfig(
        BlockConfig(width=WIDTH, heads=4),
        depth=2,
        causal=True,
        rotary=RotaryConfig(time=1.0, row=0.0, col=0.0, time_unit=1.0),
    )
    embed, head = nn.Linear(1, WIDTH), nn.Linear(WIDTH, 1)
    model = MixtureOfTransformers(config, NAMES)
    print("parameters:", count_parameters(model, NAMES).by_modality)
    optimizer = torch.optim.AdamW([*embed.parameters(), *model.parameters(), *head.parameters()], lr=2e-3)
    for step in range(301):
        layout, values, asks, answer = batch(step)
        y = model(embed(values[:, None]), layout)
        loss = nn.functional.mse_loss(head(y[asks]).squeeze(1), answer)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 100 == 0:
            naive = answer.square().mean().item()
            print(f"step {step}: squared error {loss.item():.3f} (always saying 0: {naive:.1f})")


if __name__ == "__main__":
    main()
