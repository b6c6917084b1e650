/* What the data of the ExecuTorch wheel's library refers to in torch: one object, never used without torch.

   Linked as libc10.so, and found under the names of torch's other libraries too; it brings the two libraries that torch
   would have linked. */
__attribute__((visibility("default"))) char _ZN3c1019UndefinedTensorImpl10_singletonE[4096] __attribute__((aligned(16)));
