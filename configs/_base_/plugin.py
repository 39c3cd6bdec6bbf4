# What every config of the zoo imports: the norm, the detectors, the evaluator.
custom_imports = dict(
    imports=['gn_det', 'gn_det.models', 'gn_det.evaluation'],
    allow_failed_imports=False,
)
