# Targets by name: everything that can be asked for by itself.
include: "helpers/targets.smk"


for target, files in TARGETS.items():

    rule:
        name:
            target
        input:
            files,
