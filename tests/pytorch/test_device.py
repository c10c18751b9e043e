"""The neuron device behaves as PyTorch's other devices do, and computes what the CPU computes."""

from __future__ import annotations

import copy
import io

import pytest

torch = pytest.importorskip("torch")

from opentrn import pytorch  # noqa: E402
from opentrn.errors import UnsupportedError  # noqa: E402
from opentrn.pytorch import memory  # noqa: E402

pytorch.enable()


def mlp() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.GELU(), torch.nn.Linear(8, 4))


def train(model: torch.nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor, steps: int = 4) -> list[float]:
    losses = []
    for _ in range(steps):
        loss = (model(x) ** 2).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def test_enabling_twice_is_enabling_once():
    pytorch.enable()
    assert torch.neuron.is_available()
    assert torch.accelerator.current_accelerator().type == "neuron"


def test_values_survive_the_trip_to_the_device_and_back():
    x = torch.randn(3, 5)
    moved = x.to("neuron")
    assert moved.device.type == "neuron"
    assert torch.equal(moved.cpu(), x)


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW, torch.optim.Adam])
def test_training_equals_training_on_the_cpu(optimizer):
    x = torch.randn(16, 4)
    host, device = mlp(), mlp().to("neuron")
    expected = train(host, optimizer(host.parameters(), lr=1e-2), x)
    found = train(device, optimizer(device.parameters(), lr=1e-2), x.to("neuron"))
    assert found == pytest.approx(expected, rel=1e-5)
    assert expected[-1] < expected[0]


def test_an_optimizer_made_before_the_move_still_trains_the_moved_parameters():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.to("neuron")
    before = model[0].weight.cpu().clone()
    train(model, optimizer, torch.randn(8, 4).to("neuron"), steps=1)
    assert not torch.equal(model[0].weight.cpu(), before)


def test_tied_weights_stay_tied_on_the_device():
    class Tied(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = torch.nn.Embedding(10, 4)
            self.head = torch.nn.Linear(4, 10, bias=False)
            self.head.weight = self.embedding.weight

    model = Tied().to("neuron")
    assert model.head.weight is model.embedding.weight


def test_autocast_runs_matmuls_in_bf16_and_keeps_gradients_in_fp32():
    model = mlp().to("neuron")
    with torch.autocast("neuron", dtype=torch.bfloat16):
        out = model(torch.randn(2, 4, device="neuron"))
        probabilities = out.softmax(-1)
    out.float().sum().backward()
    assert out.dtype == torch.bfloat16
    assert probabilities.dtype == torch.float32
    assert model[0].weight.grad.dtype == torch.float32


def test_a_checkpoint_loads_on_the_device_and_on_the_host_with_weights_only():
    model = mlp().to("neuron")
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    for location, device in ((None, "neuron"), ("cpu", "cpu")):
        file.seek(0)
        loaded = torch.load(file, map_location=location, weights_only=True)
        assert loaded["0.weight"].device.type == device
        assert torch.equal(loaded["0.weight"].cpu(), model[0].weight.detach().cpu())


def test_a_deep_copy_is_independent():
    model = mlp().to("neuron")
    copied = copy.deepcopy(model)
    with torch.no_grad():
        copied[0].weight.zero_()
    assert isinstance(copied[0].weight, torch.nn.Parameter)
    assert model[0].weight.abs().sum().item() > 0


@pytest.mark.parametrize("causal", [False, True])
def test_attention_and_its_gradient_equal_the_cpu(causal):
    q, k, v = (torch.randn(2, 3, 17, 8) for _ in range(3))
    results = []
    for device in ("cpu", "neuron"):
        leaves = [t.to(device).detach().requires_grad_() for t in (q, k, v)]
        out = torch.nn.functional.scaled_dot_product_attention(*leaves, is_causal=causal)
        (out**2).sum().backward()
        results.append([out.detach().cpu()] + [leaf.grad.cpu() for leaf in leaves])
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)


def test_the_same_seed_draws_the_same_numbers_as_the_cpu():
    torch.manual_seed(7)
    expected = torch.randn(5)
    torch.manual_seed(7)
    assert torch.equal(torch.randn(5, device="neuron").cpu(), expected)


def test_tensors_are_made_from_python_data():
    assert torch.tensor([1, 2], device="neuron").tolist() == [1, 2]
    assert torch.arange(4, device="neuron").sum().item() == 6
    assert torch.randn(2, device="neuron").new_tensor([3.0]).device.type == "neuron"


def test_pinned_loaders_work():
    data = torch.utils.data.TensorDataset(torch.arange(8.0))
    loader = torch.utils.data.DataLoader(data, batch_size=4, pin_memory=True)
    assert sum(batch.to("neuron", non_blocking=True).sum().item() for (batch,) in loader) == 28


def test_memory_is_counted_and_given_back():
    before = torch.neuron.memory_allocated()
    x = torch.zeros(1024, device="neuron")
    view = x[:10]
    assert torch.neuron.memory_allocated() - before == 4096
    del x
    assert torch.neuron.memory_allocated() - before == 4096  # the view holds it
    del view
    assert torch.neuron.memory_allocated() == before


def test_running_out_of_memory_says_what_uses_it(monkeypatch):
    monkeypatch.setattr(memory.device_memory(0), "capacity_bytes", torch.neuron.memory_allocated() + 2**20)
    with pytest.raises(torch.OutOfMemoryError, match="does not fit; "):
        torch.zeros(2**20, device="neuron")


@pytest.mark.parametrize(
    "write",
    [
        lambda: torch.zeros(2).cuda(),
        lambda: torch.zeros(2).to("cuda"),
        lambda: torch.zeros(2, device="cuda"),
        lambda: mlp().cuda(),
    ],
)
def test_cuda_scripts_are_told_what_to_write(write):
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(UnsupportedError, match='device = "neuron"'):
        write()


def test_float64_is_refused():
    with pytest.raises(UnsupportedError, match="no 64-bit floats"):
        torch.zeros(2, dtype=torch.float64).to("neuron")


def test_mixing_devices_is_refused():
    with pytest.raises(RuntimeError, match="different devices"):
        torch.zeros(2, device="neuron") + torch.ones(2)


def test_a_compiled_model_gives_the_same_values():
    model = mlp().to("neuron")
    x = torch.randn(3, 4, device="neuron")
    compiled = torch.compile(model, backend="neuron")
    torch.testing.assert_close(compiled(x).detach().cpu(), model(x).detach().cpu())


def test_an_event_does_not_pass_off_host_time_as_chip_time():
    start, end = torch.neuron.Event(enable_timing=True), torch.neuron.Event(enable_timing=True)
    start.record()
    end.record()
    with pytest.raises(UnsupportedError, match="elapsed_time"):
        start.elapsed_time(end)


def test_operations_are_written_down_until_the_host_waits(monkeypatch):
    from opentrn.pytorch import recording

    torch.neuron.synchronize()
    regions = []
    monkeypatch.setattr(recording, "on_region", regions.append)
    a = torch.ones(2, 3, device="neuron")
    (a @ a.t()).sum().item()
    names = [op.func.name() for region in regions for op in region.operations]
    assert names[-3:] == ["aten::t", "aten::mm", "aten::sum"]
    matmul = regions[-1].operations[-2]
    assert [v.shape for v in matmul.args] == [(2, 3), (3, 2)]
    assert matmul.results[0].shape == (2, 2)


def test_a_resized_out_argument_has_its_new_shape():
    x = torch.empty(0, device="neuron")
    torch.add(torch.ones(3, device="neuron"), 1, out=x)
    assert x.tolist() == [2.0, 2.0, 2.0]


def test_gpt2_trains_as_on_the_cpu():
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(n_layer=2, n_embd=32, n_head=2, vocab_size=50, n_positions=16)
    losses = []
    for device in ("cpu", "neuron"):
        torch.manual_seed(0)
        model = transformers.GPT2LMHeadModel(config).to(device)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        ids = torch.randint(0, 50, (2, 16)).to(device)
        found = []
        for _ in range(4):
            loss = model(ids, labels=ids).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            found.append(loss.item())
        losses.append(found)
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert losses[0][-1] < losses[0][0]
