"""What `tools/train.py` and `tools/test.py` need around mmengine's Runner."""
