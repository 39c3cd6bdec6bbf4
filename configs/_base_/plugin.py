# What every config of the zoo imports: norm, detectors, evaluator, checkpoint loader.
custom_imports = dict(
    imports=['gn_det.models', 'gn_det.workbench.evaluation'],
    allow_failed_imports=False,
)
