// What c10 links and its allocator does not call. The runtime's header is left out, so that none of their parameters need to be said.

namespace {
constexpr int kNotSupported = 801;  // cudaErrorNotSupported
}

#define NOT_SUPPORTED(name) \
  extern "C" int name() { return kNotSupported; }

NOT_SUPPORTED(cudaDeviceCanAccessPeer)
NOT_SUPPORTED(cudaDeviceEnablePeerAccess)
NOT_SUPPORTED(cudaDeviceGetDefaultMemPool)
NOT_SUPPORTED(cudaEventCreateWithFlags)
NOT_SUPPORTED(cudaEventDestroy)
NOT_SUPPORTED(cudaEventElapsedTime)
NOT_SUPPORTED(cudaEventQuery)
NOT_SUPPORTED(cudaEventRecord)
NOT_SUPPORTED(cudaEventSynchronize)
NOT_SUPPORTED(cudaFreeAsync)
NOT_SUPPORTED(cudaGetDriverEntryPointByVersion)
NOT_SUPPORTED(cudaGraphNodeGetDependencies)
NOT_SUPPORTED(cudaIpcCloseMemHandle)
NOT_SUPPORTED(cudaIpcGetMemHandle)
NOT_SUPPORTED(cudaIpcOpenMemHandle)
NOT_SUPPORTED(cudaMallocAsync)
NOT_SUPPORTED(cudaMemPoolGetAttribute)
NOT_SUPPORTED(cudaMemPoolSetAccess)
NOT_SUPPORTED(cudaMemPoolSetAttribute)
NOT_SUPPORTED(cudaMemPoolTrimTo)
NOT_SUPPORTED(cudaMemcpy)
NOT_SUPPORTED(cudaMemcpyAsync)
NOT_SUPPORTED(cudaMemcpyPeerAsync)
NOT_SUPPORTED(cudaStreamCreateWithPriority)
NOT_SUPPORTED(cudaStreamGetCaptureInfo)
NOT_SUPPORTED(cudaStreamQuery)
NOT_SUPPORTED(cudaStreamSynchronize)
NOT_SUPPORTED(cudaStreamWaitEvent)
