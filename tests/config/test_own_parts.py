"""Own parts: what a file may hold, the settings and ids of its runs, and what is refused in one line."""

import importlib
import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.own_parts import EXAMPLE, NET, Use, composed, forgotten, use
from helpers.runs import QUIET, assert_same_run, interrupt

from hidden_subnet.analysis.load import load
from hidden_subnet.config.convert import as_dict, from_dict, parse_config
from hidden_subnet.config.identity import earlier_folder_name, folder_name, projection
from hidden_subnet.config.own_parts import USED, import_own_parts, require_own_parts, with_own_code
from hidden_subnet.config.registries import DATA, METHODS, MODELS, SCHEDULES, info_of
from hidden_subnet.config.settings import Config
from hidden_subnet.errors import ConfigError, DataError
from hidden_subnet.models.from_config import random_network
from hidden_subnet.store import files, sweeps
from hidden_subnet.store.former_code import changed_lines, on_former_code
from hidden_subnet.store.provenance import of_command
from hidden_subnet.sweep.execute import execute
from hidden_subnet.sweep.preflight import preflight
from hydra_plugins.hidden_subnet.own_parts import with_own_parts

__all__ = ["forgotten", "use"]

QUICK = ("train.epochs=2", "train.batch_size=100")


def test_arguments_of_a_builder_are_settings(use: Use) -> None:
    used = use(NET)
    config = composed(used, "model=my_net", "model.hidden=7")
    assert as_dict(config)["model"]["hidden"] == 7
    assert projection(config)["model"] == {"name": "my_net", "width": 1.0, "hidden": 7}
    network = random_network(config, info_of(config.data), 0)
    assert network[1].weight.shape == (7, 64)  # type: ignore[index,union-attr]
    assert folder_name(config) != folder_name(composed(used, "model=my_net"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["model.hidden=a"], ["model.hidden=a", "whole number"]),
        (["model.hiden=3"], ["model.hiden=3", "model.hidden=3"]),
        (["model.width=2"], ["model.width=2", "my_net"]),
        (["model.norm=batch"], ["model.norm=batch"]),
        (["code_digest=0123"], ["code_digest=0123", "code_digest=ignore"]),
    ],
)
def test_settings_are_checked_as_ours(use: Use, arguments: list[str], words: list[str]) -> None:
    used = use(NET)
    with pytest.raises(ConfigError) as caught:
        composed(used, "model=my_net", *arguments)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_only_runs_on_own_parts_have_their_code_in_the_id(use: Use, tmp_path: Path) -> None:
    baseline = composed([])
    used = use(NET)
    assert folder_name(composed(used)) == folder_name(baseline)
    own = composed(used, "model=my_net")
    assert own.code == own.code_digest is not None
    assert projection(own)["code_digest"] == own.code
    assert "use" not in projection(own)


def on_other_code(use: Use, old: str, new: str) -> list[str]:
    """Import NET again, with a change, as another process would."""
    USED.clear()
    MODELS.pop("my_net", None)
    sys.modules.pop("my_other_parts", None)
    return use(NET.replace(old, new), "my_other_parts.py")


def test_another_code_is_another_run_and_one_may_ignore_it(use: Use, tmp_path: Path) -> None:
    arguments = ("model=my_net", "method=random", "data=synthetic", f"out={tmp_path / 'runs'}")
    first = composed(use(NET), *arguments)
    assert execute(first, QUIET).state == "done"
    same = composed(on_other_code(use, "import math", "import math  # arithmetic"), *arguments)
    assert folder_name(same) == folder_name(first)
    used = on_other_code(use, "nn.ReLU()", "nn.Tanh()")
    other = composed(used, *arguments)
    assert folder_name(other) != folder_name(first)
    assert changed_lines([other]) == [
        "my_other_parts.py changed since 1 of these runs was finished: other code is another run; code_digest=ignore "
        "takes the finished ones"
    ]
    ignoring = composed(used, *arguments, "code_digest=ignore")
    assert folder_name(ignoring) == folder_name(first)
    assert ignoring.code == other.code
    assert changed_lines([ignoring]) == []
    assert on_former_code(composed(used, *arguments, "seed=1")) == composed(used, *arguments, "seed=1")


def test_a_run_on_former_code_is_found_under_its_earlier_name(use: Use, tmp_path: Path) -> None:
    """Older versions named 0.50000000001 pr0.5."""
    arguments = ("model=my_net", "method=random", "data=synthetic", "prune_rate=0.50000000001", f"out={tmp_path}")
    first = composed(use(NET), *arguments)
    folder = execute(first, QUIET).folder
    earlier = earlier_folder_name(first)
    assert earlier is not None
    folder.rename(tmp_path / earlier)
    other = composed(on_other_code(use, "nn.ReLU()", "nn.Tanh()"), *arguments)
    [line] = changed_lines([other])
    assert "changed since 1 of these runs was finished" in line


def test_a_run_is_read_without_its_code_and_not_built(use: Use, tmp_path: Path) -> None:
    used = use(NET)
    config = composed(used, "model=my_net", "method=random", "data=synthetic", f"out={tmp_path / 'runs'}")
    folder = execute(config, QUIET).folder
    text = (folder / files.CONFIG).read_text()
    USED.clear()
    del MODELS["my_net"]
    read = parse_config(text, folder)
    assert as_dict(read)["model"]["hidden"] == 20
    assert projection(read) == projection(config)
    with pytest.raises(ConfigError, match=r"model=my_net: .* your own parts, which must be named again; type: .*use="):
        load(folder)
    assert "my_net" not in MODELS


def test_the_code_that_runs_is_the_code_of_the_id(use: Use) -> None:
    config = composed(use(NET), "model=my_net")
    require_own_parts(config)
    on_other_code(use, "nn.ReLU()", "nn.Tanh()")
    with pytest.raises(ConfigError, match="has changed since the run was started"):
        require_own_parts(config)


def test_a_file_that_was_imported_before_has_its_parts(use: Use, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "my_first_file.py").write_text(NET)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.import_module("my_first_file")
    used = use(NET, "my_first_file.py")
    config = composed(used, "model=my_net")
    require_own_parts(config)
    assert config.code is not None


def test_the_order_of_files_that_import_each_other_does_not_matter(forgotten: None, tmp_path: Path) -> None:
    (tmp_path / "my_far.py").write_text(NET)
    (tmp_path / "my_near.py").write_text("import my_far\n" + NET.replace("my_net", "my_other_net"))
    code = []
    for names in (("my_far.py", "my_near.py"), ("my_near.py", "my_far.py")):
        USED.clear()
        import_own_parts([str(tmp_path / name) for name in names])
        config = composed([str(tmp_path / name) for name in names], "model=my_net")
        code.append(config.code)
    assert code[0] == code[1] == USED[str(tmp_path / "my_far.py")].digest


def test_a_part_needs_a_file(forgotten: None) -> None:
    exec(NET, {})  # as a cell of a notebook does
    with pytest.raises(ConfigError, match=r"model=my_net: is registered outside of a file .* use=my_parts.py"):
        with_own_code(from_dict({**as_dict(composed([])), "model": {"name": "my_net"}}))


def test_provenance_keeps_the_code_without_secrets(use: Use) -> None:
    [path] = use(NET + '\nPASSWORD = "correct horse"\n')
    kept = of_command()["own_parts"][path]
    assert "nn.Linear(hidden, classes)" in kept
    assert "correct horse" not in kept


def test_a_file_of_settings_imports_nothing(forgotten: None, tmp_path: Path) -> None:
    path = tmp_path / "trap.py"
    path.write_text(f"open({str(tmp_path / 'executed')!r}, 'w')\n")
    with pytest.raises(ConfigError, match=r"only the command line names files to import"):
        with_own_code(from_dict({**as_dict(composed([])), "use": [str(path)]}))
    assert not (tmp_path / "executed").exists()


WRONG = {
    "syntax.py": ("def f(:\n", "line 1: invalid syntax"),
    "raises.py": ("x = 1\n1 / 0\n", "raises.py, line 2: ZeroDivisionError: division by zero"),
    "nothing.py": ("x = 1\n", "registers nothing"),
    "in_use.py": (NET.replace('"my_net"', '"conv2"'), "conv2 is in use already"),
    "json.py": (NET, "a module named json exists already"),
    "no-name.py": (NET, "is no name of a module; rename it"),
    "first.py": (NET.replace("(shape, classes, *,", "(classes, *,"), r"must be \(shape, classes\)"),
    "many.py": (NET.replace("*, hidden: int = 20", "**hidden"), r"\*hidden cannot become settings"),
    "wide.py": (
        NET.replace("hidden: int = 20", "width: int = 20"),
        "model.width is a factor, width: float = 1.0; rename an argument that counts, as in hidden: int = 300",
    ),
    "untyped.py": (NET.replace("hidden: int = 20", "hidden"), "hidden needs a type, as in hidden: int = 3"),
    "taken.py": (NET.replace("hidden: int = 20", "temperature: int = 20"), "model.temperature is a setting already"),
    "no_module.py": (
        'import hidden_subnet as hs\n@hs.register_model("a")\nclass A:\n    pass\n',
        "must inherit from torch.nn.Module",
    ),
    "no_method.py": (
        'import hidden_subnet as hs\n@hs.register_method("a")\nclass A:\n    pass\n',
        "needs a class that inherits from hidden_subnet.Method",
    ),
    "exits.py": (NET + "import sys\nsys.exit(0)\n", r"ends Python when it is imported, by sys.exit\(0\)"),
    "half.py": (NET + "import broken_half\n", "No module named 'broken_half'"),
    "zero.py": (NET + "x = '\0'\n", "null bytes"),
    "relative.py": ("from .other import x\n", r"name a file of a package as a module, .*\.relative$"),
    "comma.py": (NET.replace('"my_net"', '"my,net"'), "'my,net': no name of a part"),
    "folder.py": (NET.replace('"my_net"', '"../net"'), "'../net': no name of a part"),
    "nan.py": (NET.replace('"my_net"', '"nan"'), "'nan': no name of a part"),
    "default.py": (NET.replace("hidden: int = 20", "hidden: int = 2.5"), "hidden has the default 2.5, which is no int"),
    "none.py": (
        NET.replace("hidden: int = 20", "hidden: bool = None"),
        "hidden has the default None, which is no bool",
    ),
    "no_dataclass.py": (
        "import hidden_subnet as hs\nclass S(hs.MethodSettings):\n    beta: float = 1.0\n"
        '@hs.register_method("a")\nclass A(hs.EdgePopup):\n    settings = S\n',
        "S must be a dataclass; write @dataclass above it",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_refused_in_one_line(use: Use, name: str) -> None:
    text, words = WRONG[name]
    with pytest.raises(ConfigError, match=words) as caught:
        use(text, name)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("use=")
    assert "my_net" not in MODELS
    assert not USED


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("use=nowhere.py", "there is no such file"),
        ("use=no_such_module", "there is no such module"),
        ("use=", "names no file; as in: use=my_parts.py"),
    ],
)
def test_what_is_not_there_is_refused(
    forgotten: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=words):
        with_own_parts([typed])


@pytest.mark.parametrize("typed", ["use={}", "use='{}'", 'use=["{}"]'])
def test_a_path_may_have_commas_and_spaces(forgotten: None, tmp_path: Path, typed: str) -> None:
    path = tmp_path / "a, b" / "my_own_parts.py"
    path.parent.mkdir()
    path.write_text(NET)
    assert with_own_parts([typed.format(path)]) == [f"use={json.dumps([str(path)])}"]


def test_use_may_be_no_file() -> None:
    assert with_own_parts(["use=[]"]) == ["use=[]"]


def test_an_argument_without_default_is_asked_for(use: Use) -> None:
    used = use(NET.replace("hidden: int = 20", "hidden: int"))
    with pytest.raises(ConfigError, match=r"model\.hidden: has no default, so it must be given; type: model\.hidden="):
        composed(used, "model=my_net")


INIT = """
import torch
import hidden_subnet as hs

@hs.register_init("mine")
def mine(weight, std, generator):
    {}
"""


@pytest.mark.parametrize("body", ["return torch.zeros_like(weight)", "weight[0] = 1", "weight.fill_(float('inf'))"])
def test_an_init_that_does_not_fill_the_weight_is_refused(use: Use, body: str) -> None:
    config = composed(use(INIT.format(body)), "init=mine")
    with pytest.raises(ValueError, match=r"init=mine: left numbers .* must fill `weight` in place"):
        random_network(config, info_of(config.data), 0)


def test_an_init_by_torch_s_own_generator_follows_the_seed(use: Use) -> None:
    config = composed(use(INIT.format("torch.nn.init.normal_(weight, 0, std)")), "init=mine")
    first, second = (list(random_network(config, info_of(config.data), 0).parameters()) for _ in range(2))
    assert all(map(torch.equal, first, second))
    assert not torch.equal(first[0], next(random_network(config, info_of(config.data), 1).parameters()))


@pytest.mark.parametrize("value", ["-1.0", "None", "'x'", "float('nan')"])
def test_a_schedule_returns_a_learning_rate(use: Use, value: str) -> None:
    use(f"import hidden_subnet as hs\n@hs.register_schedule('mine')\ndef mine(epoch, train):\n    return {value}\n")
    with pytest.raises(ValueError, match=r"train.schedule=mine: must return a learning rate of 0 or more"):
        SCHEDULES["mine"].rate(0, Config().train)


def test_a_schedule_may_return_a_tensor(use: Use) -> None:
    use("""
        import torch
        import hidden_subnet as hs

        @hs.register_schedule("mine")
        def mine(epoch, train):
            return torch.tensor(0.5)
    """)
    assert SCHEDULES["mine"].rate(0, Config().train) == 0.5


def test_mirrored_images_of_numpy_are_taken(use: Use) -> None:
    used = use("""
        import numpy as np
        import hidden_subnet as hs

        @hs.register_data("mine")
        def mine(root):
            pixels = np.arange(256, dtype=np.float32).reshape(4, 1, 8, 8)[..., ::-1]
            return hs.ImageData(pixels, [0, 1, 0, 1], pixels, [0, 1, 0, 1])
    """)
    assert info_of(composed(used, "data=mine", "data.validation=0.5").data).shape == (1, 8, 8)


def test_use_becomes_absolute_paths(forgotten: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "two words.d").mkdir()
    (tmp_path / "two words.d" / "my_net_file.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    arguments = with_own_parts(["model=my_net", "use='two words.d/my_net_file.py'"])
    assert arguments == ["model=my_net", f"use={json.dumps([str(tmp_path / 'two words.d' / 'my_net_file.py')])}"]
    with pytest.raises(ConfigError, match=r"give use once; type: 'use=\[a.py,b.py\]'"):
        with_own_parts(["use=a.py", "use=b.py"])


BAD_NETWORKS = {
    "return 3": "returns int, and must return a torch.nn.Module",
    "return nn.ReLU()": "has no conv or linear layer",
    "return nn.Linear(5, classes)": "does not take images of 1x8x8",
    "return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))": r"logits of shape \(2, 10\), and gives \(2, 3\)",
    "raise KeyError('x')": "cannot be built for images of 1x8x8: my_own_parts.py, line 8: KeyError",
    "raise SystemExit(0)": "cannot be built for images of 1x8x8: my_own_parts.py, line 8: SystemExit: 0",
    "return nn.Sequential(nn.Flatten(), nn.LazyLinear(classes))": "has lazy layers, whose weights have no shape yet",
    "return ByValue(64, classes)": "may branch on shapes and not on values",
    "return nn.Sequential(nn.Flatten(), ONCE)": "1.weight is the same in each network that the builder makes",
    "return tied(nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, classes)))": (
        "model.name=my_net: 1.weight and 2.weight are one tied weight, .*; to mask nothing, type: method=dense"
    ),
}
BY_VALUE = """
ONCE = nn.Linear(64, 10)

def tied(network):
    network[1].weight = network[2].weight
    return network

class ByValue(nn.Linear):
    def forward(self, images):
        return super().forward(images.flatten(1) * (2 if images.sum().item() > 0 else 1))
"""


@pytest.mark.parametrize("body", BAD_NETWORKS)
def test_what_is_no_network_for_the_images_is_refused_before_the_first_run(use: Use, tmp_path: Path, body: str) -> None:
    head = NET.partition("    return")[0]
    used = use(f"{head}    {body}\n{BY_VALUE}")
    config = composed(used, "model=my_net", f"out={tmp_path / 'runs'}")
    with pytest.raises(ConfigError, match=BAD_NETWORKS[body]) as caught:
        preflight([config])
    assert "\n" not in str(caught.value)


IMAGES = """
import torch, hidden_subnet as hs

@hs.register_data("mine")
def mine(root, *, count: int = 60, shade: int = 3):
    pixels, labels = torch.full((count, 1, 8, 8), shade, dtype=torch.uint8), torch.arange(count) % 3
    return hs.ImageData(pixels, labels, pixels, labels)
"""


def test_own_images_have_their_numbers_and_their_content_in_the_id(use: Use) -> None:
    used = use(IMAGES)
    config = composed(used, "data=mine", "data.count=90", "model=fc")
    info = info_of(config.data)
    assert (info.shape, info.classes, info.train, info.test) == ((1, 8, 8), 3, 90, 90)
    assert info.mean == pytest.approx((3 / 255,))
    assert config.data.found.digest
    darker = composed(used, "data=mine", "data.count=90", "model=fc", "data.shade=2")
    assert darker.data.found.digest != config.data.found.digest
    assert projection(config)["data"]["count"] == 90


def test_an_own_setting_with_the_name_of_a_path_of_ours_stays_as_it_is(use: Use, tmp_path: Path) -> None:
    used = use(IMAGES.replace("shade: int = 3", "shade: int = 3, file: str = 'a.npz'"))
    config = composed(used, "data=mine", "model=fc", f"out={tmp_path / 'runs'}")
    sweep = sweeps.write(sweeps.plan([config], "one"), {})
    assert sweep.settings[0]["data"]["file"] == "a.npz"
    assert sweeps.read(sweep.folder).configs == sweep.configs


def test_images_of_floats_stay_as_they_are(use: Use) -> None:
    brighter = "pixels = pixels.double() + torch.arange(count)[:, None, None, None]"
    floats = IMAGES.replace("    return hs", f"    {brighter}\n    return hs")
    config = composed(use(floats), "data=mine", "model=fc", "method=random", "data.validation=0")
    made = DATA["mine"].own(config.data)  # type: ignore[misc]
    before = made.train.clone()
    assert made.train.dtype == torch.float32
    assert made.info.mean == pytest.approx((3 + 59 / 2,))
    assert made.info.std == pytest.approx((math.sqrt((60**2 - 1) / 12),))
    from hidden_subnet.data.loaders import open_loaders

    with open_loaders(config.data, info_of(config.data), seed=0, batch_size=16, device="cpu") as loaders:
        for _ in range(2):
            seen = torch.cat([images for images, _ in loaders.test])
            torch.testing.assert_close(seen, (before - made.info.mean[0]) / made.info.std[0])
            shuffled = torch.cat([images for images, _ in loaders.train.epoch(0, 0)])
            torch.testing.assert_close(shuffled.flatten().sort().values, seen.flatten().sort().values)
    assert torch.equal(made.train, before)


BAD_IMAGES = {
    "return 3": "must return hidden_subnet.ImageData, and returns int",
    "return hs.ImageData(pixels[:0], labels[:0], pixels, labels)": r"train must be images of shape \(N, C, H, W\)",
    "return hs.ImageData(pixels.expand(-1, 3, 8, 8).movedim(1, 3), labels, pixels, labels)": r"moveaxis\(train, 3, 1\)",
    "return hs.ImageData(pixels / float('nan'), labels, pixels / 1, labels)": "NaN or infinite",
    "return hs.ImageData(pixels.int(), labels, pixels.int(), labels)": "must be uint8 or float32",
    "return hs.ImageData(pixels, labels[1:], pixels, labels)": "train_labels must be 60 whole numbers",
    "return hs.ImageData(pixels, labels - 1, pixels, labels)": "train_labels has -1",
    "return hs.ImageData(pixels, labels, pixels, labels, classes=2)": "2 classes and a label 2",
    "return hs.ImageData(pixels, labels, pixels, labels + 1)": "3 classes and a label 3",
    "return hs.ImageData(pixels, labels * 0, pixels, labels * 0)": "a single class",
    "return hs.ImageData(pixels, labels, pixels[..., 1:], labels)": "training and test images differ",
    "return hs.ImageData(pixels, labels, pixels, labels, mean=(1.0, 2.0))": "a number for each of 1 channels",
    "raise OSError('no disk')": "OSError: no disk",
    "raise SystemExit(0)": "SystemExit: 0",
}


@pytest.mark.parametrize("body", BAD_IMAGES)
def test_what_are_no_images_is_refused_in_one_line(use: Use, body: str) -> None:
    used = use(IMAGES.replace("return hs.ImageData(pixels, labels, pixels, labels)", body))
    with pytest.raises(DataError, match=BAD_IMAGES[body]) as caught:
        composed(used, "data=mine", "model=fc")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("data=mine: ")


def example(*arguments: str) -> Config:
    import_own_parts([str(EXAMPLE)])
    parts = ("model=two_layers", "data=stripes", "init=halves", "method=redrawn", "train.schedule=triangle")
    return composed([str(EXAMPLE)], *parts, "data.images=300", *QUICK, *arguments)


def test_the_example_goes_on_to_the_same_bits(forgotten: None, tmp_path: Path) -> None:
    whole = execute(example(f"out={tmp_path / 'whole'}", "train.epochs=6"), QUIET)
    resumed = example(f"out={tmp_path / 'resumed'}", "train.epochs=6")
    interrupt(resumed, steps=7)
    assert execute(resumed, QUIET).state == whole.state == "done"
    assert_same_run(whole.folder, files.folder_of(resumed))
    assert METHODS["redrawn"].settings is type(resumed.method)


def test_load_imports_what_it_is_given(forgotten: None, tmp_path: Path) -> None:
    folder = execute(example(f"out={tmp_path / 'runs'}"), QUIET).folder
    network: Any = load(folder, use=str(EXAMPLE))
    assert network(torch.zeros(2, 1, 12, 12)).shape == (2, 3)
