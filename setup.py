"""Packaging of gn_det; the tools' settings are in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent


def read_version() -> str:
    scope: dict[str, str] = {}
    exec((HERE / 'gn_det' / 'version.py').read_text(), scope)
    return scope['__version__']


setup(
    # As mmdet is to mmdetection: mim finds the package by top_level.txt.
    name='gn-detection',
    version=read_version(),
    description='Group Normalization for detection: a plugin and config zoo for '
    'MMDetection',
    long_description=(HERE / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    license_files=['LICENSE'],
    keywords='group normalization object detection mask r-cnn mmdetection triton',
    # Where the method and the host library are described.
    project_urls={
        'Paper': 'https://arxiv.org/abs/1803.08494',
        'MMDetection': 'https://github.com/open-mmlab/mmdetection',
    },
    classifiers=[
        'Development Status :: 4 - Beta',
        'Environment :: Console',
        'Environment :: GPU :: NVIDIA CUDA',
        'Intended Audience :: Science/Research',
        'Operating System :: POSIX :: Linux',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Topic :: Scientific/Engineering :: Image Recognition',
        'Typing :: Typed',
    ],
    packages=find_packages(include=['gn_det', 'gn_det.*', 'gn_det_cli*']),
    # Said outright, it makes an editable install an entry of sys.path. Without it, a
    # finder behind sys.path, which a folder called gn_det, such as a clone, hides.
    package_dir={'': '.'},
    entry_points={'console_scripts': ['gn-det = gn_det_cli.main:main']},
    # Where OpenMMLab's programs look for the configs and tools of a package; in the
    # checkout these are links to configs/, tools/ and model-index.yml.
    package_data={
        'gn_det': [
            '.mim/model-index.yml',
            '.mim/configs/**/*.py',
            '.mim/configs/**/*.yml',
            '.mim/tools/*',
            'py.typed',
        ],
        'gn_det.workbench.report': ['templates/*.j2'],
    },
    python_requires='>=3.10',
    install_requires=[
        'torch>=2.8',
        'torchvision>=0.23',
        'numpy',
        'pycocotools',
        'faster-coco-eval>=1.8',
        'matplotlib',
        'jinja2',
        'msgspec>=0.19',
        'pyyaml',
        'requests>=2.32',
        'urllib3>=2.1',
        'filelock>=4.2',
        'safetensors>=0.4',
        'tqdm',
        'rich',
    ],
    # The two families install the same import names (mmengine, mmcv, mmdet), so an
    # environment holds one of them and the user says which.
    extras_require={
        'onnx': ['onnx', 'onnxscript'],
        'onedl': [
            'onedl-mmengine>=0.10.12',
            'onedl-mmcv>=2.3.6',
            'onedl-mmdetection>=3.5.1',
        ],
        'openmmlab': [
            'mmengine>=0.10.7',
            'mmcv-lite>=2.1.0,<2.2.0',
            'mmdet>=3.3.0',
            # mmengine 0.10.7 imports pkg_resources, which setuptools 82 dropped.
            'setuptools<82',
        ],
    },
)
