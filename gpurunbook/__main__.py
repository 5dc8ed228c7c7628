from gpurunbook.cli import main

main()
