from ml_collections import ConfigDict

from mmrpt_jax.stages.placement import describe_placement


def test_bytes_are_those_of_a_device(tiny_model):
    config = ConfigDict({"mesh": {"data": 2, "fsdp": 2, "tensor": 2}})
    lines = describe_placement(config, tiny_model).splitlines()
    rows = {line.split()[0]: line for line in lines}
    vocabulary, width = tiny_model.vocab_size, tiny_model.decoder.width
    # Split over `tensor` and `fsdp`, of two devices each; float32.
    assert f"{vocabulary} × {width}" in rows["embedding"] and "tensor, fsdp" in rows["embedding"]
    assert float(rows["embedding"].split()[-1]) == round(vocabulary * width / 4 * 4 / 2**20, 2)
    assert "tensor" not in rows["decoder/final_norm/scale"]
    parts = [float(line.split()[-1]) for line in lines[2:-1]]
    assert abs(float(lines[-1].split()[-1]) - sum(parts)) < 0.005 * len(parts)
