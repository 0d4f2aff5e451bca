/* What the extension is linked against where there is no driver: a libnvidia-ml.so.1 that has every
 * function by name, and does nothing. Never installed. */
#define NVML_NO_DECLARATIONS
#include "nvml_abi.h"

#define DEFINE(name, arguments) \
    void name(void); \
    void name(void) {}
NVML_FUNCTIONS(DEFINE, DEFINE)
