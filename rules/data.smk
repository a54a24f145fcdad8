# In:  the dataset the study names (scikit-learn, torchvision's download, a file of arrays, an image folder)
# Out: dataset.safetensors, split between victim, pirate and test; checked.json once everything fits together
# Both run on the controller's machine: compute nodes have no network, and bad input must stop before any job.


rule prepare_dataset:
    output:
        f"{RESULTS}/dataset.safetensors",
    log:
        f"{RESULTS}/logs/prepare_dataset.log",
    benchmark:
        f"{RESULTS}/benchmarks/prepare_dataset.tsv"
    localrule: True
    conda:
        "../envs/scatterproof.yaml"
    resources:
        runtime=60,
        mem_mb=4000,
        gpu=0,
    params:
        records=f"{RESULTS}/records",
        config=lambda wildcards: STUDY.dataset.model_dump_json(),
        source=STUDY.dataset.stamp(),
    message:
        "reading and splitting the dataset"
    script:
        "../workflow/scripts/prepare_dataset.py"


# Reads the study from the config and not from params: it gates the first training, and a study that is extended later
# must not train again what is trained. What is added then is checked by the jobs that it adds.
rule check_study:
    input:
        f"{RESULTS}/dataset.safetensors",
    output:
        f"{RESULTS}/checked.json",
    log:
        f"{RESULTS}/logs/check_study.log",
    benchmark:
        f"{RESULTS}/benchmarks/check_study.tsv"
    localrule: True
    conda:
        "../envs/scatterproof.yaml"
    resources:
        runtime=10,
        mem_mb=4000,
        gpu=0,
    params:
        records=f"{RESULTS}/records",
    message:
        "checking that models, checkpoints, layers and block sizes fit"
    script:
        "../workflow/scripts/check_study.py"
