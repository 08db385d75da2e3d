#pragma once
// The life of a trainer process: takes its order from the control socket, fetches what it needs from the coordinator, plans or
// trains, stores what came out, and says how it ended. No libtorch.

namespace lockstep {

// The process's exit code: 0 if the coordinator knows how this trainer ended, 1 if it died of something else, which its last
// status names.
int RunSession(int control_fd);

}  // namespace lockstep
